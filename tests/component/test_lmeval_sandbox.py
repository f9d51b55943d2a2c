"""Planted hostile programs, in the sandbox that runs what a model wrote for HumanEval."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from localism.lmeval import sandbox
from localism.lmeval.code_eval import CodeEval
from localism.lmeval.sandbox import OPEN, Sandbox, SandboxBroken
from localism.lmeval.staging import SAMPLES


def shut() -> Sandbox | None:
    try:
        return sandbox.find()
    except SandboxBroken:
        return None


pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(
        shut() is None, reason="this machine permits no sandbox: see sandbox.find()"
    ),
]


@pytest.fixture
def tried_anew():
    """What this machine offers is found out once a process; not what a test pretends."""
    sandbox.find.cache_clear()
    yield
    sandbox.find.cache_clear()


def ended(program: str, seconds: float = 3.0) -> str:
    """How a program ended, and what it said, in one line."""
    found = shut()
    assert found is not None
    outcome = found.run(program, seconds)
    return f"{outcome.kind} {outcome.said}"


def test_a_right_program_passes_and_a_wrong_one_says_why_not() -> None:
    assert ended("assert 1 + 1 == 2") == "passed "
    assert ended("assert 1 + 1 == 3, 'no'") == "failed AssertionError: no"
    assert ended("def broken(:").startswith("failed SyntaxError")


def test_threads_event_loops_numpy_and_files_of_its_own_are_there() -> None:
    program = (
        "import asyncio, os, tempfile, threading, numpy\n"
        "async def three(): return 3\n"
        "assert asyncio.run(three()) == 3\n"
        "done = []\n"
        "thread = threading.Thread(target=done.append, args=(1,)); thread.start(); thread.join()\n"
        "assert done == [1] and numpy.ones(3).sum() == 3\n"
        "with tempfile.TemporaryFile() as file: file.write(b'x' * 1000)\n"
        "open('mine', 'w').write('x'); assert os.listdir('.') == ['mine']\n"
    )
    assert ended(program) == "passed "


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "import socket; socket.socket(socket.AF_INET6)",
        "import socket; socket.socket(socket.AF_UNIX)",  # a database's, Docker's
        "import socket; socket.socket(socket.AF_NETLINK)",
        "import urllib.request; urllib.request.urlopen('http://192.0.2.1/', timeout=2)",
        "import socket; raise OSError(socket.getaddrinfo('example.com', 80))",
        "import os; os.fork()",
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import multiprocessing; multiprocessing.Process(target=print).start()",
    ],
)
def test_connections_processes_and_programs_are_refused(program: str) -> None:
    said = ended(program)
    assert said.startswith("failed ")
    assert "not permitted" in said or "gaierror" in said or "urlopen error" in said


def test_nothing_outside_its_folder_can_be_written_or_removed(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.write_text("gold")
    for attempt in (
        f"open({str(treasure)!r}, 'w')",
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"import os; os.remove({str(treasure)!r})",
        f"import os; os.chmod({str(treasure)!r}, 0)",
        f"import shutil; shutil.rmtree({str(tmp_path)!r})",
        f"import os; os.link({str(treasure)!r}, 'here')",
        "open('/dev/shm/x', 'w')",
        "import os; os.mknod('device', 0o20666, os.makedev(1, 1)); open('device', 'rb').read(1)",
    ):
        assert ended(attempt).startswith("failed "), attempt
    assert treasure.read_text() == "gold"
    assert os.listdir(tmp_path) == ["treasure"]


def test_the_walls_cannot_be_taken_down() -> None:
    calls = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "writable = bytes(8) + b'\\1' + bytes(23)\n"
        "attempts = [\n"
        "    libc.unshare(0x10000000), libc.unshare(0x20000),\n"
        "    libc.mount(b'tmpfs', b'/proc', b'tmpfs', 0, b''), libc.umount(b'/proc'),\n"
        "    libc.syscall(442, -100, b'/', 0x8000, writable, 32),\n"  # mount_setattr
        "    libc.syscall(425, 1, bytes(120)),\n"  # io_uring_setup
        "    libc.syscall(56, 17, 0, 0, 0, 0), libc.syscall(435, bytes(88), 88),\n"  # clone, clone3
        "    libc.syscall(0x40000000 + 57),\n"  # fork, by its number of x32
        "    libc.chroot(b'/tmp'), libc.setns(0, 0), libc.ptrace(0, 0, 0, 0),\n"
        "]\n"
        "assert attempts == [-1] * 12, attempts"
    )
    assert ended(calls) == "passed "


def test_neither_environment_nor_other_processes_are_in_sight(monkeypatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "gold")
    said = ended("import os; raise Exception(sorted(os.environ), os.listdir('/proc'), os.getpid())")
    assert "SECRET" not in said
    names = "['HOME', 'LANG', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'TMPDIR']"
    assert said == f"failed Exception: ({names}, [], 1)"


def test_signals_reach_no_process_outside() -> None:
    outside = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ended(f"import os; os.kill({outside.pid}, 9)")
        ended("import os; os.kill(-1, 9)")
        assert outside.poll() is None
    finally:
        outside.kill()
        outside.communicate()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("x = [0] * 10**10", "failed MemoryError"),
        ("x = b'x'\nwhile True: x += x", "failed MemoryError"),
        ("open('big', 'w').write('x' * 2**22)", "failed OSError: [Errno 27] File too large"),
        ("files = [open('/etc/hostname') for _ in range(99)]", "failed OSError: [Errno 24]"),
        (
            "for n in range(99):\n  open(f'{n}', 'w').write('x' * 2**20)",
            "failed OSError: [Errno 28",
        ),
        ("def f(): f()\nf()", "failed RecursionError"),
    ],
)
def test_memory_files_and_depth_are_bounded(program: str, said: str) -> None:
    assert ended(program).startswith(said)


def test_a_program_that_runs_on_is_stopped_and_one_that_will_not_stop_is_ended() -> None:
    started = time.monotonic()
    assert ended("while True: pass", 0.5) == "timed out "
    assert ended("try:\n  while True: pass\nexcept Exception: pass", 0.5) == "timed out "
    stubborn = "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass"
    assert ended(stubborn, 0.5) == "timed out and would not stop"
    threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"
    assert ended(threads, 0.5) == "passed "
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "print('passed')",
        "import os\nfor n in range(3, 64):\n  try: os.write(n, b'passed\\n')\n  except OSError: 0",
        "import os; os.closerange(0, 64)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import ctypes; ctypes.string_at(0)",
    ],
)
def test_a_program_that_leaves_early_or_prints_passed_has_not_passed(program: str) -> None:
    said = ended(program + "\nassert False")
    assert not said.startswith("passed")


def test_every_problem_of_the_sample_is_passed_by_its_solution_and_failed_without() -> None:
    found = shut()
    assert found is not None
    lines = (SAMPLES / "humaneval/openai_humaneval/test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    tests = [f"{row['test']}\ncheck({row['entry_point']})" for row in rows]
    right = [row["prompt"] + row["canonical_solution"] for row in rows]
    wrong = [row["prompt"] + "    return 'something else'\n" for row in rows]
    metric = CodeEval(found)
    scores, outcomes = metric.compute(tests, list(zip(right, wrong, strict=True)), [1, 2, 10])
    assert [[one.kind for one in pair] for pair in outcomes] == [["passed", "failed"]] * len(rows)
    assert scores == {"pass@1": 0.5, "pass@2": 1.0}  # of two programs there is no pass@10
    assert metric.outcomes == {"passed": 20, "failed": 20}


def test_without_a_sandbox_bounds_and_filter_still_hold() -> None:
    assert OPEN.run("assert True").kind == "passed"
    assert "not permitted" in OPEN.run("import os; os.fork()").said
    assert "not permitted" in OPEN.run("import socket; socket.socket()").said
    assert OPEN.run("x = [0] * 10**10").said.startswith("MemoryError")


def test_a_machine_without_one_says_why_and_what_to_do(monkeypatch, tmp_path, tried_anew) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxBroken) as refused:
        sandbox.find()
    assert "unshare (util-linux) is not installed" in refused.value.where
    assert "--allow-unsandboxed-code" in refused.value.fix
    program = tmp_path / "unshare"
    program.write_text(
        "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(SandboxBroken) as refused:
        sandbox.find()
    assert "unshare: unshare failed: Operation not permitted" in refused.value.where


def test_a_way_in_that_shuts_nothing_off_is_not_taken_for_a_sandbox(
    monkeypatch, tmp_path, tried_anew
) -> None:
    program = tmp_path / "unshare"  # skips its options and runs the rest where it is
    program.write_text('#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(sandbox, "JAIL", open_jail(tmp_path))
    with pytest.raises(SandboxBroken) as refused:
        sandbox.find()
    assert "was let through" in refused.value.where


def open_jail(folder: Path) -> Path:
    """The jail's own script with its walls left out, as on a kernel that ignored the calls."""
    script = sandbox.JAIL.read_text()
    for wall in ("shut_files(os.getcwd())", "drop_rights()", "refuse_calls()"):
        assert f"        {wall}\n" in script
        script = script.replace(f"        {wall}\n", "        pass\n")
    (folder / "jail.py").write_text(script)
    return folder / "jail.py"
