"""A million turns through the program itself: memory, turns a second, CPU and bytes a turn.

    python benchmarks/turns.py --turns 1000000               # 2 ms of CPU a turn on this side
    python benchmarks/turns.py --turns 1000000 --inside      # 0.6 ms: replies are made, not fetched

A plan is made with the real stage mix; then `localism generate` works on it, against an HTTP server
in a process of its own that answers at once (/v1/models, /v1/chat/completions with usage, and
vLLM's /metrics), or, with --inside, with one line of the program replaced by one that makes the
reply: the same client, ledger and stage without sockets. The generating process is watched from
outside every few seconds. Afterwards: what a resumed process pays to know the ledger, the size of
the corpus and of its write-ahead log. Prints a table and one JSON line; saves
benchmarks/results/turns.json, where a result with HTTP and one without it stand side by side.
"""

import argparse
import asyncio
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from localism import __version__, reader  # noqa: E402
from localism.records import stable_id  # noqa: E402
from localism.store import Store, now  # noqa: E402

TURNS_A_MIX = 3
SKILLS = 1_200
WORDS_A_TEXT = 90
# Turns before growth counts: by then 128 MiB of pages are in DuckDB's cache, and it keeps no more.
WARM_UP = 130_000
INTERRUPTED = 130
DRAWN = random.Random(0)
VOCABULARY = ["".join(DRAWN.choices("etaoinshrdlu", k=DRAWN.randint(2, 9))) for _ in range(3000)]
WRITTEN = """
SELECT (SELECT count(*) FROM turn) AS turns, count(instruction) AS parsed FROM candidate
"""
TICKS = os.sysconf("SC_CLK_TCK")
MODELS = """
seed = 0
[teacher]
endpoints = ["{url}"]
max_num_seqs = 256
[judge]
same_as = "teacher"
[student]
path = "embedded:student"
max_tokens = 224
[prompts]
pack = "compact"
[curate]
gates = ["parsed", "length"]
[mix]
k = 2
design = "random"
train = {train}
dev = 2
test = 2
"""


def main() -> None:
    """Make the plan, watch the stage, look at what is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end early, by SIGTERM")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two samples")
    parser.add_argument("--work", type=Path, help="folder for the corpus (2 GB), instead of /tmp")
    parser.add_argument("--keep", action="store_true", help="leave the run folder")
    parser.add_argument("--inside", action="store_true", help="without HTTP")
    parser.add_argument("--stage", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    if options.stage:
        answer_inside(options.stage)
        return
    folder = Path(tempfile.mkdtemp(prefix="turns-", dir=options.work))
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        result = measure(folder / "run", port, options)
    finally:
        server.kill()
        server.wait()
        if options.keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder)
    save("inside" if options.inside else "http", result)


def save(kind: str, result: dict[str, Any]) -> None:
    """Beside the last result of the other kind."""
    path = ROOT / "benchmarks" / "results" / "turns.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**results, kind: result}) + "\n")
    print(json.dumps(result))


# ---- the server ------------------------------------------------------------------------------


def made_answer() -> bytes:
    """A chat completion: an example of random words."""
    words = DRAWN.choices(VOCABULARY, k=2 * WORDS_A_TEXT)
    instruction, response = " ".join(words[:WORDS_A_TEXT]), " ".join(words[WORDS_A_TEXT:])
    text = f"### Instruction\n{instruction}.\n### Response\n{response}."
    reply = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 300, "completion_tokens": 240, "total_tokens": 540}
    choices = [{"index": 0, "message": reply, "finish_reason": "stop"}]
    answer = {"id": "chat", "object": "chat.completion", "created": 0, "model": "dummy"}
    return json.dumps({**answer, "choices": choices, "usage": usage}).encode()


class Dummy(asyncio.Protocol):
    """A connection to a server that answers at once, whatever is asked, with an example of words.

    By hand, because aiohttp's server would take a third of the two cores that all this shares.
    """

    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        length = int(found[1]) if found else 0
        if not end or len(rest) < length:
            return
        self._received = rest[length:]
        path = head.split(b" ", 2)[1]
        answer = self._complete() if path.endswith(b"/completions") else self._look(path)
        kind = b"text/plain" if path == b"/metrics" else b"application/json"
        self._transport.write(  # type: ignore[attr-defined]
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (kind, len(answer), answer)
        )

    def _complete(self) -> bytes:
        Dummy.answered += 1
        return made_answer()

    def _look(self, path: bytes) -> bytes:
        if path == b"/metrics":
            figures = {
                "num_requests_running": 256, "num_requests_waiting": 64, "kv_cache_usage_perc": 0.4,
                "num_preemptions_total": 0, "generation_tokens_total": 240 * self.answered,
                "prompt_tokens_total": 300 * self.answered,
            }  # fmt: skip
            lines = [f'vllm:{name}{{engine="0"}} {value}\n' for name, value in figures.items()]
            return "".join(lines).encode()
        listed = {"id": "dummy", "object": "model", "created": 0, "owned_by": "us"}
        return json.dumps({"object": "list", "data": [listed]}).encode()


async def serve() -> None:
    """Print the port and answer until killed."""
    server = await asyncio.get_running_loop().create_server(Dummy, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


# ---- the run ---------------------------------------------------------------------------------


def measure(run: Path, port: int, options: argparse.Namespace) -> dict[str, Any]:
    """The result row."""
    mixes = options.turns // TURNS_A_MIX
    make_skills(run)
    models = run / "models.toml"
    models.write_text(MODELS.format(url=f"http://127.0.0.1:{port}/v1", train=mixes - 4))
    planned = watch(localism("mix", run, models), options.every)
    done = watch(
        localism("generate", run, inside=options.inside),
        options.every,
        run / reader.CORPUS,
        60 * options.minutes,
    )
    written = reader.read(run, WRITTEN).as_dicts()[0]
    assert math.isfinite(options.minutes) or written["parsed"] == mixes, written
    turns, samples = written["turns"], done.pop("samples")
    rows, corpus = turns + written["parsed"], (run / reader.CORPUS).stat().st_size
    result = {
        "benchmark": "turns", "date": str(date.today()), "version": __version__, "turns": turns,
        "rows": rows, "planned_mixes": mixes, "mix_seconds": planned["seconds"], **done,
        "turns_a_second": round(turns / done["seconds"]),
        "rows_a_second": round(rows / done["seconds"]),
        "cpu_ms_a_turn": round(1000 * done["cpu_seconds"] / turns, 2),
        "corpus_bytes_a_turn": round(corpus / turns), **growth(samples), **resumed(run),
        "load_average": os.getloadavg()[2], "turns_rss_wal": thinned(samples),
    }  # fmt: skip
    for name, value in result.items():
        if name != "turns_rss_wal":
            print(f"{name:<28} {value}")
    return result


def make_skills(run: Path) -> None:
    """Rows as extract and cluster leave them, and their word that they are done."""
    run.mkdir(parents=True)
    with Store(run / reader.CORPUS) as store:
        for number in range(SKILLS):
            name, skill, cluster = f"skill number {number}", f"s{number}", f"c{number}"
            store.add(
                "skill", skill_id=skill, name=name, cluster_id=cluster, rare=False, count=1,
                hdbscan_label=number, strength=1.0, map_x=0.0, map_y=0.0,
            )  # fmt: skip
            store.add(
                "cluster", cluster_id=cluster, name=name, medoid=name, size=1, persistence=None,
                keywords=None,
            )  # fmt: skip
        for stage in ("extract", "cluster"):
            store.add(
                "event", event_id=stable_id(stage), happened_at=now(), stage=stage,
                kind="stage_finished", detail='{"summary": "made"}',
            )  # fmt: skip


def localism(
    stage: str, run: Path, models: Path | None = None, inside: bool = False
) -> subprocess.Popen[bytes]:
    """A stage as its user starts it."""
    words = [stage, "--run", str(run), "--plain", *(["--models", str(models)] if models else [])]
    own = [__file__, "--stage", *(word.replace("--", "++") for word in words)]
    command = [sys.executable, *(own if inside else ["-m", "localism", *words])]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=here, cwd=ROOT)


def answer_inside(words: list[str]) -> None:
    """The program, with one line replaced: an endpoint's reply is made here and not fetched."""
    from openai.types.chat import ChatCompletion

    from localism.cli.main import main
    from localism.serving.endpoint import Endpoint

    async def complete(_: Endpoint, __: dict[str, Any]) -> ChatCompletion:
        await asyncio.sleep(0)
        return ChatCompletion.model_validate_json(made_answer())

    Endpoint.complete = complete  # type: ignore[method-assign]
    sys.argv = ["localism", *(word.replace("++", "--") for word in words)]
    main()


def watch(
    process: subprocess.Popen[bytes],
    every: float,
    corpus: Path | None = None,
    limit: float = math.inf,
) -> Any:
    """Seconds and CPU of a process, with (second, turns, RSS, WAL) samples while it lived."""
    began, samples, cpu = time.monotonic(), [], 0.0
    while process.poll() is None:
        try:
            cpu = _cpu(process.pid)
            sample = {"seconds": round(time.monotonic() - began, 1), **_memory(process.pid)}
        except (FileNotFoundError, ProcessLookupError, KeyError):
            break  # it ends at this moment
        if corpus:
            wal = corpus.with_name(corpus.name + ".wal")
            sample["wal"] = wal.stat().st_size // 2**20 if wal.exists() else 0
            sample["turns"] = _turns(corpus.parent)
        samples.append(sample)
        if time.monotonic() - began > limit:
            process.terminate()
            break
        time.sleep(every)
    if process.wait() not in (0, INTERRUPTED):
        sys.exit(f"exit code {process.returncode}")
    seconds = round(time.monotonic() - began, 1)
    return {"seconds": seconds, "cpu_seconds": round(cpu, 1), "samples": samples}


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[key].split()[0]) >> 10 for key, name in
            (("VmRSS", "rss"), ("VmHWM", "peak"), ("RssAnon", "own"))}  # fmt: skip


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _turns(run: Path) -> int | None:
    """As `localism status` asks; None while the run begins or ends."""
    try:
        return int(reader.read(run, "SELECT count(*) FROM turn").rows[0][0])
    except Exception:  # whatever it is: this is one sample of hundreds
        return None


def growth(samples: list[dict[str, int]]) -> dict[str, Any]:
    """MiB: the most during the warm-up and how much more later, likewise the least; the WAL."""
    counted = [one for one in samples if one["turns"]]
    warm = [one["rss"] for one in counted if one["turns"] <= WARM_UP]
    later = [one["rss"] for one in counted if one["turns"] > WARM_UP] or warm
    last = later[-max(1, len(later) // 10) :]
    return {
        "rss_mib_most_warming_up": max(warm), "rss_mib_most_later": max(later),
        "rss_mib_median_warming_up": statistics.median(warm),
        "rss_mib_median_of_last_tenth": statistics.median(last),
        "rss_mib_peak": max(one["peak"] for one in samples),
        "wal_mib_longest": max(one["wal"] for one in samples),
    }  # fmt: skip


def thinned(samples: list[dict[str, int]]) -> list[list[int]]:
    """At most 60 of (turns, RSS, WAL)."""
    step = max(1, len(samples) // 60)
    return [[one["turns"] or 0, one["rss"], one["wal"]] for one in samples[::step]]


KNOW = """
import json, sys, time
from pathlib import Path
from localism.store import Store
began = time.monotonic()
with Store(Path(sys.argv[1])) as store:
    opened = time.monotonic()
    from localism.serving.known import KnownTurns
    fingerprint = store.value("SELECT model_fingerprint FROM turn LIMIT 1")
    known = KnownTurns(store, fingerprint)
    loaded = time.monotonic()
    ids = [row["turn_id"] for row in store.query("SELECT turn_id FROM turn USING SAMPLE 2000")]
    sampled = time.monotonic()
    assert all(turn in known for turn in ids)
    for turn in ids:
        store.query("SELECT * FROM turn WHERE turn_id = ?", [turn])
    found = time.monotonic()
print(json.dumps({
    "open_seconds": round(opened - began, 2), "know_seconds": round(loaded - opened, 2),
    "found_again_ms_a_turn": round((found - sampled) / len(ids) * 1000, 2),
}))
"""


def resumed(run: Path) -> dict[str, Any]:
    """What a process that goes on pays: opening the corpus, knowing its turns, taking one back."""
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KNOW, str(run / reader.CORPUS)]
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
