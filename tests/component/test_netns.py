"""The network namespace of the end-to-end tests: loopback works in it, and nothing else does."""

import os
import subprocess
import sys

import netns
import pytest

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(
        netns.reason_not_permitted() is not None,
        reason=f"no network namespaces here: {netns.reason_not_permitted()}",
    ),
]


def inside(code: str, **arguments: object) -> str:
    """What a Python program printed in the namespace."""
    command = netns.isolated([sys.executable, "-c", "import socket, os, errno\n" + code])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **arguments)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "localhost"])
def test_loopback_works_inside(host: str) -> None:
    printed = inside(
        "server = socket.create_server(('', 0))\n"
        f"client = socket.create_connection(('{host}', server.getsockname()[1]), 5)\n"
        "client.sendall(b'hello')\n"
        "print(server.accept()[0].recv(5))"
    )
    assert printed == "b'hello'\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "198.51.100.1", "8.8.8.8"])
def test_the_rest_of_the_world_has_no_route_inside(host: str) -> None:
    printed = inside(
        f"print(errno.errorcode[socket.socket().connect_ex(('{host}', 80))])\n"
        "datagrams = socket.socket(type=socket.SOCK_DGRAM)\n"
        f"print(errno.errorcode[datagrams.connect_ex(('{host}', 53))])"
    )
    assert printed == "ENETUNREACH\n" * 2


def test_loopback_is_the_only_interface_inside() -> None:
    assert inside("print([name for _, name in socket.if_nameindex()])") == "['lo']\n"


def test_a_name_is_not_resolved_inside() -> None:
    printed = inside(
        "try:\n    print(socket.getaddrinfo('example.com', 80))\n"
        "except socket.gaierror:\n    print('no answer')"
    )
    assert printed == "no answer\n"


def test_a_program_that_is_not_python_is_held_too() -> None:
    script = "exec 3<>/dev/tcp/198.51.100.1/80"
    done = subprocess.run(netns.isolated(["bash", "-c", script]), capture_output=True, text=True)
    assert done.returncode != 0
    assert "unreachable" in done.stderr


def test_children_cannot_step_outside() -> None:
    ours = os.stat("/proc/self/ns/net").st_ino
    child = "import os; print(os.stat('/proc/self/ns/net').st_ino)"
    printed = inside(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])")
    assert int(printed) != ours


def test_arguments_environment_folder_and_exit_code_pass_through(tmp_path) -> None:
    command = netns.isolated(
        [sys.executable, "-c",
         "import os, sys; print(sys.argv[1:], os.environ['SOME'], os.getcwd()); sys.exit(7)",
         "a b", "--flag"]
    )  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | {"SOME": "thing"}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == f"['a b', '--flag'] thing {tmp_path}\n"
    assert done.returncode == 7


def test_what_is_written_inside_belongs_to_the_user(tmp_path) -> None:
    inside(f"open({str(tmp_path / 'made')!r}, 'w').close()")
    assert (tmp_path / "made").stat().st_uid == os.getuid()


def test_killing_the_process_kills_the_command() -> None:
    """unshare and the helper become the command: no process in between is left behind."""
    program = "import os; print(os.getpid(), flush=True); input()"
    process = subprocess.Popen(
        netns.isolated([sys.executable, "-c", program]),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        try:
            assert int(process.stdout.readline()) == process.pid
        finally:
            process.kill()
