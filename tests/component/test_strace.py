"""What the guard can't see, the kernel's list of calls shows: a child of a run under strace."""

import subprocess
import sys
from pathlib import Path

import pytest
import socket_calls
from planted import OUTSIDE

from localism import offline

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(
        socket_calls.reason_not_here() is not None,
        reason=f"no strace here: {socket_calls.reason_not_here()}",
    ),
]

# A datagram socket is connected without a packet being sent.
CHILD = f"""
import ctypes, os, socket, struct, threading

def through_python():
    try:
        socket.socket(type=socket.SOCK_DGRAM).connect(("{OUTSIDE}", 80))
    except PermissionError:
        pass

def as_native_code_does():
    libc = ctypes.CDLL(None)
    where = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 53)
    where += socket.inet_aton("{OUTSIDE}") + bytes(8)
    libc.connect(libc.socket(socket.AF_INET, socket.SOCK_DGRAM, 0), where, len(where))

assert ctypes.CDLL(None).syscall(425, 8, bytes(120)) == -1, "a ring of io_uring"
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).sendall(b"hello")
through_python()
if os.fork() == 0:
    thread = threading.Thread(target=as_native_code_does)
    thread.start()
    thread.join()
    os._exit(0)
os.wait()
"""


LOOP = """
import asyncio, uvloop

async def hello(reader, writer):
    writer.write(b"hello")
    writer.close()

async def exchange():
    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b"hello"

uvloop.run(exchange())
"""


def test_libuv_which_makes_a_ring_for_itself_works_without_and_hides_nothing(
    tmp_path: Path,
) -> None:
    pytest.importorskip("uvloop")
    trace = tmp_path / "trace"
    subprocess.run(socket_calls.traced([sys.executable, "-c", LOOP], trace), check=True, timeout=60)
    assert "io_uring_setup(" in trace.read_text()
    calls = socket_calls.read(trace).calls
    assert [call.address for call in calls if call.name == "connect"] == ["127.0.0.1"]
    assert not any(call.leaves for call in calls)


def test_native_code_that_the_guard_does_not_see_is_in_the_trace(tmp_path: Path) -> None:
    script, trace = tmp_path / "child.py", tmp_path / "trace"
    script.write_text(CHILD)
    subprocess.run(
        socket_calls.traced([sys.executable, str(script)], trace),
        env=offline.child_environment(tmp_path, "a child"),
        check=True,
        timeout=120,
    )
    # The guard: what went through Python, and was refused before the kernel heard of it.
    (attempt,) = offline.refused_connections(tmp_path)
    assert any("through_python" in frame for frame in attempt["stack"])
    # The trace: what went past it, from a thread of a fork, and nothing else.
    seen = socket_calls.read(trace)
    (left,) = [call for call in seen.calls if call.leaves]
    assert (left.program, left.name, left.address, left.port) == (
        "child.py",
        "connect",
        OUTSIDE,
        53,
    )
    stayed = [call for call in seen.calls if call.address == "127.0.0.1"]
    assert [call.name for call in stayed] == ["connect"]
    assert seen.processes["child.py"] == 2
