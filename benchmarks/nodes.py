"""One engine over two machines, by Ray: does it answer as one machine does, and what stays behind?

    python benchmarks/nodes.py                      # about ten minutes on two cores; needs root or
                                                    # the right to make network namespaces

The two machines are network namespaces with a cable between them. In one works a program that
serves the embedded teacher through localism's own Engine and Client, in the other
`localism worker`. Two sides, pipeline parallel 2 (half of the layers on each machine) and data
parallel 2 (a copy on each), beside an engine on one machine that answers the same prompts greedily.
Then, with the pipeline: kill -9 of vLLM's worker on the other machine, of the other machine's
`localism worker`, and of the program itself, and a look at what is left.

vLLM's CPU build has no name for its processors that Ray could count (ray_device_key is empty), and
with --enforce-eager it never makes the buffers of a second pipeline stage. A platform of ten lines,
which vLLM loads as a plugin, mends both; everything else is what runs on GPUs.

A table for people, then one line of JSON, also written to benchmarks/results/nodes.json.
"""

import argparse
import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import netns  # noqa: E402  (tests/ is no package)

from localism import __version__, offline  # noqa: E402
from localism.context import Context  # noqa: E402
from localism.models_toml import validate  # noqa: E402
from localism.progress import Progress  # noqa: E402
from localism.recipe import RECIPE  # noqa: E402
from localism.records import Sampling  # noqa: E402
from localism.serving.client import Client  # noqa: E402
from localism.serving.crew import for_each  # noqa: E402
from localism.serving.server import serve  # noqa: E402
from localism.store import Store  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "nodes.json"
PROMPTS = 32
SIDES = {
    "one machine": {},
    "pipeline 2": {"nodes": 2, "pipeline_parallel": 2},
    "data 2": {"nodes": 2, "data_parallel": 2},
}
PLATFORM = """
from vllm.platforms.cpu import CpuPlatform

class CountedByRay(CpuPlatform):
    ray_device_key = "GPU"

    @classmethod
    def check_and_update_config(cls, vllm_config):
        vllm_config.parallel_config.worker_cls = "counted_worker.Worker"
        super().check_and_update_config(vllm_config)
"""
WORKER = """
from vllm.v1.worker.cpu_worker import CPUWorker

class Worker(CPUWorker):
    def determine_available_memory(self):
        self.model_runner.profile_run()  # makes the buffers between pipeline stages
        return super().determine_available_memory()
"""
ENTRY = "[vllm.platform_plugins]\ncounted = counted_plugin:platform\n"


# ---- the program on the run's machine ------------------------------------------------------


def work(folder: Path, address: str, keys: dict[str, Any]) -> None:
    """Serve, answer, and then do what is read from stdin; facts go to stdout, a JSON line each."""
    teacher = {
        "path": "embedded:teacher", "dtype": "float32", "max_num_seqs": 16,
        "start_timeout_seconds": 400,
    }  # fmt: skip
    if keys:
        teacher |= {"rendezvous": address, **keys}
    tables = {"teacher": teacher, "judge": {"same_as": "teacher"}}
    config = validate({**tables, "student": {"path": "embedded:student"}}, "nodes.py")
    offline.close_air_gap(folder)
    with Store(folder / "corpus.duckdb") as store:
        asyncio.run(converse(Context(config, store, folder, Progress(io.StringIO(), plain=True))))


async def converse(context: Context) -> None:
    """The engine's whole life."""
    began = time.monotonic()
    async with serve(context, "teacher", "generate") as client:
        await client.ready()
        tell(ready=round(time.monotonic() - began, 1))
        sys.stdin.readline()
        began = time.monotonic()
        texts = await ask(client, "first", PROMPTS)
        tell(texts=texts, seconds=round(time.monotonic() - began, 1))
        for line in sys.stdin:
            began = time.monotonic()
            texts = await ask(client, line.strip(), 2 * PROMPTS, ignore_eos=True)
            tell(answered=len(texts), seconds=round(time.monotonic() - began, 1))
    tell(ended=True, refused=len(offline.refused_connections(context.folder)))


async def ask(client: Client, name: str, number: int, **extra: Any) -> list[str]:
    """Greedy replies; says when the fourth has come."""
    texts = [""] * number

    async def one(index: int) -> None:
        length = 40 + (4 * index if extra else 0)
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=length)
        prompt = f"Write an instruction about {name} and skill {index}, then a response."
        reply = await client.conversation().say(
            prompt, template="draft", sampling=sampling, extra=extra or None
        )
        texts[index] = reply.text
        if sum(map(bool, texts)) == 4:
            tell(going=True)

    await for_each(range(number), one, client.in_flight)
    return texts


def tell(**facts: Any) -> None:
    """A line for the program that watches."""
    print(json.dumps(facts), flush=True)


# ---- the program that watches --------------------------------------------------------------


def plugin(folder: Path) -> None:
    """vLLM's plugin, as a folder for PYTHONPATH."""
    facts = folder / "counted-0.1.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: counted\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text(ENTRY)
    (folder / "counted_platform.py").write_text(PLATFORM)
    (folder / "counted_worker.py").write_text(WORKER)
    name = "counted_platform.CountedByRay"
    (folder / "counted_plugin.py").write_text(f"def platform():\n    return {name!r}\n")


def environment(machine: netns.Machine, plugins: Path | None) -> dict[str, str]:
    """Of a program on a machine."""
    paths = [str(plugins or ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "GLOO_SOCKET_IFNAME": machine.interface,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }


def on(machine: netns.Machine, plugins: Path | None, *words: str) -> "subprocess.Popen[str]":
    """A program on a machine."""
    return subprocess.Popen(
        [*machine.entrance, sys.executable, *words],
        env=environment(machine, plugins),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def worker(folder: Path, machine: netns.Machine, plugins: Path) -> "subprocess.Popen[str]":
    """localism worker."""
    return on(machine, plugins, "-m", "localism", "worker", "--run", str(folder))


def heard(process: "subprocess.Popen[str]", fact: str) -> dict[str, Any]:
    """What a program says of a fact; what it says before is passed over."""
    stdout: IO[str] | None = process.stdout
    assert stdout is not None
    for line in stdout:
        facts: dict[str, Any] = json.loads(line)
        if fact in facts:
            return facts
    raise SystemExit(f"ended before it said anything of {fact!r}")


def say(process: "subprocess.Popen[str]", line: str) -> None:
    """Have a program do something."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def of_vllm(machine: netns.Machine) -> dict[int, float]:
    """vLLM's own workers on a machine."""
    return netns.processes(machine, "ray::RayWorkerProc")


@contextmanager
def at_work(
    side: str, folder: Path, machines: tuple[netns.Machine, netns.Machine], plugins: Path
) -> Iterator["tuple[subprocess.Popen[str], list[subprocess.Popen[str]]]"]:
    """The run's program, and the helpers on the other machine, to be added to."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / RECIPE).write_text("{}")
    keys = SIDES[side]
    helpers = [worker(folder, machines[1], plugins)] if keys else []
    words = [__file__, "--work", str(folder), machines[0].address, json.dumps(keys)]
    program = on(machines[0], plugins if keys else None, *words)
    try:
        yield program, helpers
    finally:
        for process in (program, *helpers):
            process.terminate()
            process.wait()


def measure(
    side: str, folder: Path, machines: tuple[netns.Machine, netns.Machine], plugins: Path
) -> dict[str, Any]:
    """One side: its start, its answers, and what each machine did for them."""
    with at_work(side, folder, machines, plugins) as (program, _):
        ready = heard(program, "ready")["ready"]
        before = [sum(of_vllm(machine).values()) for machine in machines]
        say(program, "go")
        answers = heard(program, "texts")
        after = [sum(of_vllm(machine).values()) for machine in machines]
        assert program.stdin is not None
        program.stdin.close()
        refused = heard(program, "ended")["refused"]
        left = wait_for_none(machines)
    return {
        "start_seconds": ready, "answer_seconds": answers["seconds"], "texts": answers["texts"],
        "cpu_seconds": [round(b - a, 2) for a, b in zip(before, after, strict=True)],
        "refused_connections": refused, "seconds_until_none_is_left": left,
    }  # fmt: skip


def sides(
    folder: Path, machines: tuple[netns.Machine, netns.Machine], plugins: Path
) -> dict[str, Any]:
    """All of them, with a line for each."""
    result: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    print("side          start   answers   CPU seconds here, there   equal texts   left after")
    for side in SIDES:
        found = measure(side, folder, machines, plugins)
        texts[side] = found.pop("texts")
        pairs = zip(texts["one machine"], texts[side], strict=True)
        found["equal_texts"] = sum(a == b for a, b in pairs)
        result[side] = found
        print(
            f"{side:12} {found['start_seconds']:6} {found['answer_seconds']:9} "
            f"{found['cpu_seconds']!s:>25} {found['equal_texts']:7} of {PROMPTS} "
            f"{found['seconds_until_none_is_left']:9}",
            flush=True,
        )
    return result


def wait_for_none(machines: tuple[netns.Machine, netns.Machine], limit: float = 120) -> float:
    """Seconds until no process of Ray or vLLM is left on either machine."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        left = [
            pid
            for machine in machines
            for name in ("ray::", "raylet", "gcs_server", "ray_start", "vllm", "VLLM")
            for pid in netns.processes(machine, name)
        ]
        if not left:
            return round(time.monotonic() - began, 1)
        time.sleep(0.2)
    raise SystemExit(f"left after {limit} s: {left}")


def kills(
    folder: Path, machines: tuple[netns.Machine, netns.Machine], plugins: Path
) -> dict[str, Any]:
    """kill -9 of each thing that can go, in the middle of answers."""
    found: dict[str, Any] = {}
    with at_work("pipeline 2", folder, machines, plugins) as (program, helpers):
        heard(program, "ready")
        say(program, "go")
        heard(program, "texts")

        say(program, "a worker that is killed")
        heard(program, "going")
        (victim,) = of_vllm(machines[1])
        os.kill(victim, signal.SIGKILL)
        found["vllm's worker there"] = heard(program, "answered")
        print(f"vLLM's worker killed: {found}", flush=True)

        say(program, "a machine that is lost")
        heard(program, "going")
        helpers[0].kill()
        helpers.append(worker(folder, machines[1], plugins))
        found["localism worker there"] = heard(program, "answered")
        print(f"machine lost: {found}", flush=True)

        say(program, "a run that is killed")
        heard(program, "going")
        for pid in netns.processes(machines[0], "--work"):
            os.kill(pid, signal.SIGKILL)
        found["the run"] = {"seconds_until_none_is_left": wait_for_none(machines)}
    return found


def main() -> None:
    """All sides, then the kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("sides", "kills"), help="one of the two, for a result")
    parser.add_argument("--work", nargs=3, metavar=("FOLDER", "ADDRESS", "KEYS"))
    options = parser.parse_args()
    if options.work:
        folder, address, keys = options.work
        return work(Path(folder), address, json.loads(keys))
    if reason := netns.reason_not_joined():
        raise SystemExit(reason)
    result: dict[str, Any] = json.loads(RESULT.read_text()) if options.part else {}
    result |= {
        "benchmark": "nodes", "date": str(date.today()), "version": __version__,
        "prompts": PROMPTS, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary, netns.joined() as machines:
        folder, plugins = Path(temporary) / "run", Path(temporary) / "plugin"
        plugin(plugins)
        if options.part != "kills":
            result |= sides(folder, machines, plugins)
        if options.part != "sides":
            result["kills"] = kills(folder, machines, plugins)
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
