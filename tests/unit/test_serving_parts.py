"""Serving without an engine: what a log means, which processes are ours, what fits an engine."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines import embedded_config

from localism.errors import ConfigError, StageError
from localism.paths import embedded
from localism.processes import end_leftover, session_processes, write_record
from localism.serving import engine, keeper
from localism.serving.failures import engine_error, log_since
from localism.serving.guard import Guard
from localism.serving.swap import check_fits, end_tokens

# Lines as vLLM 0.32 and torch print them.
LOGS = [
    (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "ran out of memory",
        "gpu_memory_utilization",
    ),
    (
        "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired "
        "GPU memory utilization (0.9, 71.3 GiB).",
        "ran out of memory",
        "gpu_memory_utilization",
    ),
    (
        "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 "
        "GiB KV cache is needed, which is larger than the available KV cache memory (9.2 GiB).",
        "does not fit",
        "lower [teacher].max_model_len",
    ),
    (
        "Value error, User-specified max_model_len (99999) is greater than the derived "
        "max_model_len (max_position_embeddings=1024 or model_max_length=None in model's "
        "config.json).",
        "longer than the model can read",
        "at most 1024",
    ),
    ("OSError: [Errno 98] Address already in use", "the port was taken", "again"),
    (
        "entry.py: error: unrecognized arguments: --no-such-flag 3",
        "does not know --no-such-flag 3",
        "engine_arguments",
    ),
    (
        "ValueError: current platform cpu does not support ray.",
        "cannot span machines",
        "[teacher].nodes = 1",
    ),
    (
        "/usr/bin/python: Error while finding module specification for 'vllm.entrypoints' "
        "(ModuleNotFoundError: No module named 'vllm')",
        "not installed",
        "pip install",
    ),
]


@pytest.mark.parametrize(("line", "problem", "fix"), LOGS)
def test_a_known_failure_is_named_with_its_fix(tmp_path: Path, line: str, problem: str, fix: str):
    log = tmp_path / "log"
    log.write_text(f"older start\nmore of it\n{line}\n")
    error = engine_error("no start", log, "", "teacher")
    assert problem in error.problem and fix in error.fix
    assert line[:100] in error.where and str(log) in error.where


def test_only_the_log_of_this_start_is_shown_and_an_unknown_cause_points_to_it(tmp_path: Path):
    log = tmp_path / "log"
    header = "# 2026-11-21 10:00:00 vllm --port 1\n"
    log.write_text(f"{header}CUDA out of memory\n{header}")
    log.write_text(log.read_text() + "".join(f"line {n}\n" for n in range(40)))
    error = engine_error("no start", log, header, "judge")
    assert error.problem == "no start" and str(log) in error.fix
    assert "line 39" in error.where and "line 20" not in error.where
    assert "CUDA" not in error.where


def traceback_of(prefix: str, *error: str, frames: int = 3) -> list[str]:
    """As vLLM 0.32 prints one, through its logger (with a prefix) or through Python itself."""
    inner = [
        f'  File "vllm/a{n}.py", line {n}, in f{n}\n    call{n}()\n    ^^^^^^^'
        for n in range(frames)
    ]
    lines = ["Traceback (most recent call last):", *"\n".join(inner).split("\n"), *error]
    return [prefix + line for line in lines]


CORE = "(EngineCore pid=9767) ERROR 11-21 03:43:45 [core.py:1510] "
WORKER = "(Worker_TP1 pid=9801) ERROR 11-21 03:43:44 [multiproc_executor.py:953] "
PASSED_ON = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)
MISSING = (
    "FileNotFoundError: Weight files referenced in index but missing: {'model-00002.safetensors'}"
)
OF_WORKER = (
    "Exception: WorkerProc initialization failed due to an exception in a background process."
)
CHAIN = ["", "During handling of the above exception, another exception occurred:", ""]
SETTING = [
    "(EngineCore pid=9767) INFO 11-21 03:43:44 [core.py:133] trust_remote_code=True, dtype=float32"
]
LATE = traceback_of(CORE, "ValueError: late")
FAILED = {
    "the core alone": (
        traceback_of(CORE, MISSING, frames=40),
        MISSING,
    ),
    "a worker, whose core waits for it": (
        [*traceback_of(CORE, OF_WORKER), *traceback_of(WORKER, "KeyError: 'model.layers.0.w'")],
        "KeyError: 'model.layers.0.w'",
    ),
    "two processes at once, line by line": (
        [line for both in zip(LATE, traceback_of(WORKER, MISSING), strict=True) for line in both],
        MISSING,
    ),
    "an error on two lines": (
        traceback_of(CORE, "ValidationError: 1 validation error for X", "  Value error, no"),
        "ValidationError: 1 validation error for X Value error, no",
    ),
    "an error while another is handled": (
        [*traceback_of(CORE, "KeyError: 'a'"), *(CORE + line for line in CHAIN),
         *traceback_of(CORE, MISSING)],
        MISSING,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILED)
def test_the_root_cause_of_an_engine_is_told_and_not_the_last_words_of_its_server(
    tmp_path: Path, name: str
):
    lines, said = FAILED[name]
    last = [
        "Process EngineCore:",
        *traceback_of("", MISSING, frames=40),
        *traceback_of("", PASSED_ON),
    ]
    log = tmp_path / "log"
    log.write_text("\n".join(["# start", *SETTING, *lines, *last, "localism: the server ended"]))
    error = engine_error("no start", log, "# start", "teacher")
    assert error.problem == f"no start: {said}"
    assert re.findall(r"call\d+", error.where) in (["call1", "call2"], ["call38", "call39"])
    assert len(error.where.splitlines()) < 10 and "^^^" not in error.where
    assert "See root cause above" not in error.where and error.where.startswith(str(log))


def test_a_root_cause_that_is_known_is_named_with_its_fix(tmp_path: Path):
    memory = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    (tmp_path / "log").write_text(
        "\n".join([*SETTING, *traceback_of(WORKER, memory), *traceback_of("", PASSED_ON)])
    )
    error = engine_error("no start", tmp_path / "log", "", "judge")
    assert error.problem == "no start: the engine ran out of memory"
    assert memory in error.where and "[judge].gpu_memory_utilization" in error.fix


def test_a_start_that_failed_is_an_event_with_its_cause(monkeypatch, new_context):
    lines = [*traceback_of(CORE, MISSING), *traceback_of("", PASSED_ON)]
    code = f"print({chr(10).join(lines)!r}); raise SystemExit(1)"
    monkeypatch.setattr(engine.Engine, "command", lambda _: [sys.executable, "-c", code])
    context = new_context(embedded_config())
    with pytest.raises(StageError, match="Weight files referenced"):
        asyncio.run(engine.Engine(context, "teacher", "extract").ready())
    (event,) = context.store.query("FROM event WHERE kind = 'engine_failed'")
    detail = json.loads(event["detail"])
    assert (event["stage"], detail["role"]) == ("extract", "teacher")
    assert detail["problem"].endswith(MISSING) and "extract-teacher.log" in detail["where"]


def test_what_was_printed_since_a_start_is_found_in_rotated_logs_too(tmp_path: Path):
    log, header = tmp_path / "log", "# 2026-11-21 10:00:00 vllm --port 2\n"
    (tmp_path / "log.2").write_text(f"CUDA out of memory\n{header}No available memory for the")
    (tmp_path / "log.1").write_text(" cache blocks\nlater\n")
    log.write_text("latest\n")
    assert log_since(log, header) == "No available memory for the cache blocks\nlater\nlatest\n"
    error = engine_error("it died", log, header, "judge")
    assert "does not fit into the engine's cache" in error.problem and "latest" in error.where


# ---- processes -----------------------------------------------------------------------------


def start_session(*words: str) -> "subprocess.Popen[bytes]":
    code = "import time; time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=True)


def wait_until(claim: object, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_what_an_earlier_run_left_behind_is_killed(tmp_path: Path):
    record = tmp_path / "engine.json"
    left = start_session("vllm")
    write_record(record, left.pid)
    end_leftover(record)
    assert left.wait(5) == -signal.SIGKILL
    assert not record.exists()


@pytest.mark.parametrize("change", ["another program", "older process", "before a reboot"])
def test_a_process_that_merely_has_the_recorded_number_is_left_alone(tmp_path: Path, change: str):
    record = tmp_path / "engine.json"
    other = start_session("editor" if change == "another program" else "vllm")
    try:
        write_record(record, other.pid)
        noted = json.loads(record.read_text())
        if change == "older process":
            noted["started"] += 1
        if change == "before a reboot":
            noted["boot"] = "another"
        record.write_text(json.dumps(noted))
        end_leftover(record)
        assert other.poll() is None
        assert not record.exists()
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", [None, "", "not json"])
def test_no_record_or_a_torn_one_kills_nothing(tmp_path: Path, content: str | None):
    record = tmp_path / "engine.json"
    if content is not None:
        record.write_text(content)
    end_leftover(record)


def keep(
    log: Path, *command: str, script: Path = Path(keeper.__file__)
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", str(script), str(log), *command],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


# A server with a child that ignores the polite signal, as an orphaned engine does.
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)'\n"
    "subprocess.Popen([sys.executable, '-c', child])\n"
    "time.sleep({seconds})\n"
)


@pytest.mark.parametrize("end", ["the server ends", "the server is killed", "localism is gone"])
def test_nothing_of_a_session_outlives_its_server_or_its_parent(tmp_path: Path, end: str):
    seconds, log = "2" if end == "the server ends" else "60", tmp_path / "log"
    kept = keep(log, sys.executable, "-c", STUBBORN.format(seconds=seconds))
    try:
        assert wait_until(lambda: len(session_processes(kept.pid)) == 3)
        if end == "the server is killed":
            os.kill(sorted(session_processes(kept.pid))[1], signal.SIGKILL)
        if end == "localism is gone":
            kept.stdin.close()
        kept.wait(10)
        assert wait_until(lambda: session_processes(kept.pid) == [])
        assert "localism: the server ended with exit code" in log.read_text()
    finally:
        kept.stdin.close()


# ---- logs ----------------------------------------------------------------------------------

# Two processes that print at once, as an API server and its engine do.
TALKATIVE = """
import os, sys
is_child = os.fork() == 0
who = "child" if is_child else "parent"
for number in range({lines}):
    os.write(1 + number % 2, f"{{who}} {{number:06d}} {text}\\n".encode())
if not is_child:
    os.wait()
"""


@pytest.fixture
def small_logs(tmp_path: Path) -> Path:
    """The keeper with logs of 1 MB, as a script of its own."""
    script = tmp_path / "keeper_of_small_logs.py"
    text = Path(keeper.__file__).read_text()
    assert "LOG_BYTES = 64 << 20" in text
    script.write_text(text.replace("LOG_BYTES = 64 << 20", "LOG_BYTES = 1 << 20"))
    return script


def test_a_log_that_grows_is_rotated_and_no_line_is_lost_or_torn(small_logs: Path, tmp_path: Path):
    log, text = tmp_path / "generate-teacher.log", "x" * 80
    log.write_text("# an earlier start\n")
    talk = TALKATIVE.format(lines=18_000, text=text)
    kept = keep(log, sys.executable, "-c", talk, script=small_logs)
    assert kept.wait(120) == -signal.SIGKILL  # as it ends all of its session
    kept.stdin.close()
    files = [log, *keeper.old_logs(log)]
    assert [file.exists() for file in files] == [True] * 4
    assert all(file.stat().st_size < 1.2 * 2**20 for file in files)
    lines = "".join(file.read_text() for file in reversed(files)).splitlines()
    for who in ("parent", "child"):
        mine = [line for line in lines if line.startswith(who)]
        assert mine == [f"{who} {number:06d} {text}" for number in range(18_000)]
    assert lines[-1] == "localism: the server ended with exit code 0"


# ---- the command ---------------------------------------------------------------------------


def test_a_gpu_engine_gets_its_gpus_and_no_eager_mode(monkeypatch, new_context):
    monkeypatch.setattr(engine, "engine_kind", lambda table: "gpu")
    table = {"tensor_parallel": 2, "data_parallel": 2, "gpu_memory_utilization": 0.8}
    context = new_context(embedded_config(teacher=table))
    command = engine.Engine(context, "judge", "curate").command()
    for words in (
        ["--tensor-parallel-size", "2"],
        ["--data-parallel-size", "2"],
        ["--gpu-memory-utilization", "0.8"],
        ["--served-model-name", "judge"],
        ["--host", "127.0.0.1"],
    ):
        assert command[command.index(words[0]) + 1] == words[1]
    assert "--enforce-eager" not in command and "--trust-remote-code" not in command


def test_what_the_user_adds_stands_last_and_the_key_is_in_no_argument(monkeypatch, new_context):
    monkeypatch.setattr(engine, "engine_kind", lambda table: "cpu")
    table = {"engine_arguments": ("--load-format", "dummy")}
    context = new_context(embedded_config(teacher=table))
    started = engine.Engine(context, "teacher", "generate")
    assert started.command()[-2:] == ["--load-format", "dummy"]
    assert not any(started.key in word for word in started.command())
    assert started.environment()["VLLM_API_KEY"] == started.key
    assert started.environment()["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(("role", "swaps"), [("teacher", False), ("student", True)])
def test_only_the_student_opens_the_routes_that_change_weights(
    monkeypatch, new_context, role, swaps
):
    monkeypatch.setattr(engine, "engine_kind", lambda table: "cpu")
    started = engine.Engine(new_context(), role, "pick")
    assert ("VLLM_SERVER_DEV_MODE" in started.environment()) == swaps
    assert ("localism.serving.guard.Guard" in started.command()) == swaps


# ---- the guard -----------------------------------------------------------------------------


def passes_guard(monkeypatch: pytest.MonkeyPatch, path: str, key: str | None) -> bool:
    monkeypatch.setenv("VLLM_API_KEY", "right")
    reached: list[str] = []

    async def app(scope, receive, send) -> None:
        reached.append(scope["path"])

    async def send(message) -> None:
        assert message.get("status", 401) == 401

    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    scope = {"type": "http", "path": path, "headers": headers}
    asyncio.run(Guard(app)(scope, None, send))
    return bool(reached)


@pytest.mark.parametrize(
    ("path", "key", "is_let_in"),
    [
        ("/health", None, True),
        ("/collective_rpc", None, False),
        ("/collective_rpc", "wrong", False),
        ("/collective_rpc", "right", True),
        ("/v1/models", None, False),
    ],
)
def test_the_guard_asks_for_the_key_everywhere_but_at_health(monkeypatch, path, key, is_let_in):
    assert passes_guard(monkeypatch, path, key) == is_let_in


# ---- does a checkpoint fit -----------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    shutil.copytree(embedded("embedded:student"), folder)
    return folder


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_a_trainer_writes_differently_still_fits(checkpoint: Path):
    change_json(
        checkpoint / "config.json", dtype="bfloat16", transformers_version="9", eos_token_id=[3, 5]
    )
    check_fits(embedded("embedded:student"), checkpoint)
    assert end_tokens(checkpoint) >= {3, 5}


def test_a_checkpoint_of_another_architecture_does_not_fit(checkpoint: Path):
    change_json(checkpoint / "config.json", num_hidden_layers=99)
    with pytest.raises(ConfigError, match="differs in num_hidden_layers"):
        check_fits(embedded("embedded:student"), checkpoint)


def test_a_checkpoint_that_lacks_a_tensor_does_not_fit(checkpoint: Path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(ConfigError, match="model.norm.weight"):
        check_fits(embedded("embedded:student"), checkpoint)


def test_a_torn_checkpoint_does_not_fit(checkpoint: Path):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="damaged"):
        check_fits(embedded("embedded:student"), checkpoint)


def test_a_checkpoint_with_other_tokens_does_not_fit(checkpoint: Path):
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["a new word"] = 2303
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigError, match="other tokens"):
        check_fits(embedded("embedded:student"), checkpoint)


def test_a_checkpoint_written_by_a_newer_trainer_fits_the_base_that_it_came_from(tmp_path):
    base, trained = tmp_path / "base", tmp_path / "trained"
    for folder in (base, trained):
        shutil.copytree(embedded("embedded:student"), folder)
    config = json.loads((base / "config.json").read_text())
    for new in ("rope_parameters", "head_dim", "mlp_bias"):  # as transformers 4 wrote it
        config.pop(new, None)
    (base / "config.json").write_text(json.dumps({**config, "rope_theta": 10000.0}))
    check_fits(base, trained)
    (base / "tokenizer.json").rename(base / "tokenizer.model")
    check_fits(base, trained)


def test_a_checkpoint_of_another_size_does_not_fit(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(embedded("embedded:student"), other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        check_fits(embedded("embedded:student"), other)
