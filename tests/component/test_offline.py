"""The air gap, in subprocesses: an audit hook stays for as long as its process lives."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from localism import egress, offline
from localism.errors import ConfigError

# TEST-NET-2 (RFC 5737). Not TEST-NET-1: virtual machines are fond of living in 192.0.2.0/24.
OUTSIDE = "198.51.100.1"
pytestmark = pytest.mark.component
PRELUDE = "import socket, asyncio, sys, os\n"
CLOSE = (
    "from pathlib import Path\nfrom localism import offline\n"
    "offline.close_air_gap({!r}, [*map(offline.host_of, {!r})])\n"
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have closed the air gap of this very process."""
    for name in ("PYTHONPATH", egress.LOG_VARIABLE, egress.ALLOWED_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def start(code: str, folder: Path, *flags: str, **variables: str) -> subprocess.Popen[str]:
    """A Python child as the stages start theirs."""
    return subprocess.Popen(
        [sys.executable, *flags, "-c", PRELUDE + textwrap.dedent(code)],
        env=offline.child_environment(folder) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def child(code: str, folder: Path, *flags: str, **variables: str) -> str:
    """What a child printed; it has to end well."""
    process = start(code, folder, *flags, **variables)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    return printed


def ours(code: str, folder: Path, endpoints: tuple[str, ...] = ()) -> str:
    """What a process printed that closed the air gap itself, as localism does."""
    close = CLOSE.replace("{!r}", "Path({!r})", 1).format(str(folder), endpoints)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + close + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_of_the_working_folder_is_not_taken_for_a_library(tmp_path: Path) -> None:
    (tmp_path / "timeit.py").write_text("print('taken for the library')")
    done = subprocess.run(
        [sys.executable, "-m", "timeit", "-n", "1", "pass"],
        cwd=tmp_path,
        env=offline.child_environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout.startswith("1 loop")


REFUSED = """
    def phone_home():
        {call}
    try:
        phone_home()
    except PermissionError as error:
        print("refused", type(error).__name__)
"""

TCP = "s = socket.socket(); s.settimeout(5); "
TCP6 = "s = socket.socket(socket.AF_INET6); s.settimeout(5); "
UDP = "s = socket.socket(type=socket.SOCK_DGRAM); "
UVLOOP = "import uvloop; run = uvloop.run; "
ASYNCIO = "run = asyncio.run; "
OPEN = "run(asyncio.wait_for(asyncio.open_connection('{}', 80), 5))"
WAYS = {
    "connect": (TCP + f"s.connect(('{OUTSIDE}', 80))", OUTSIDE),
    "connect_ex": (TCP + f"s.connect_ex(('{OUTSIDE}', 80))", OUTSIDE),
    "bytes": (TCP + f"s.connect((b'{OUTSIDE}', 80))", OUTSIDE),
    "create_connection": (f"socket.create_connection(('{OUTSIDE}', 80), 5)", OUTSIDE),
    "sendto": (UDP + f"s.sendto(b'x', ('{OUTSIDE}', 80))", OUTSIDE),
    "sendto with flags": (UDP + f"s.sendto(b'x', 0, ('{OUTSIDE}', 80))", OUTSIDE),
    "sendmsg": (UDP + f"s.sendmsg([b'x'], [], 0, ('{OUTSIDE}', 80))", OUTSIDE),
    "connected datagrams": (UDP + f"s.connect(('{OUTSIDE}', 80))", OUTSIDE),
    "broadcast": (UDP + "s.connect(('<broadcast>', 80))", "<broadcast>"),
    "multicast": (UDP + "s.sendto(b'x', ('224.0.0.251', 5353))", "224.0.0.251"),
    "IPv6": (TCP6 + "s.connect(('2001:db8::1', 80))", "2001:db8::1"),
    "IPv6 with flow and scope": (TCP6 + "s.connect(('fe80::1', 80, 0, 1))", "fe80::1"),
    "IPv4 in IPv6": (TCP6 + f"s.connect(('::ffff:{OUTSIDE}', 80))", f"::ffff:{OUTSIDE}"),
    "asyncio": (ASYNCIO + OPEN.format(OUTSIDE), OUTSIDE),
    "uvloop": (UVLOOP + OPEN.format(OUTSIDE), OUTSIDE),
    "urllib": (f"import urllib.request as r; r.build_opener().open('http://{OUTSIDE}/')", OUTSIDE),
    "getaddrinfo": ("socket.getaddrinfo('example.com', 80)", "example.com"),
    "gethostbyname": ("socket.gethostbyname('example.com')", "example.com"),
    "gethostbyname_ex": ("socket.gethostbyname_ex('example.com')", "example.com"),
    "gethostbyaddr": (f"socket.gethostbyaddr('{OUTSIDE}')", OUTSIDE),
    "getnameinfo": (f"socket.getnameinfo(('{OUTSIDE}', 80), 0)", OUTSIDE),
    "a name in connect": (TCP + "s.connect(('example.com', 80))", "example.com"),
    "a name in sendto": (UDP + "s.sendto(b'x', ('example.com', 80))", "example.com"),
    "a name in asyncio": (ASYNCIO + OPEN.format("example.com"), "example.com"),
    "a name in uvloop": (UVLOOP + OPEN.format("example.com"), "example.com"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_out_is_refused_and_recorded(way: str, tmp_path: Path) -> None:
    call, target = WAYS[way]
    if "uvloop" in way:
        pytest.importorskip("uvloop")
    if "asyncio" in way or "uvloop" in way or way == "urllib":  # these wrap the error in their own
        code = f"try:\n    {call}\nexcept Exception as error:\n    print('refused', repr(error))"
    else:
        code = textwrap.dedent(REFUSED).format(call=call)
    assert child(code, tmp_path).startswith("refused")
    (attempt,) = offline.refused_connections(tmp_path)
    assert attempt["target"][0] == target


def test_datagrams_of_event_loops_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    child(
        f"""
        import uvloop
        async def send():
            loop = asyncio.get_running_loop()
            await loop.create_datagram_endpoint(asyncio.DatagramProtocol,
                                                remote_addr=("{OUTSIDE}", 53))
        for run in (asyncio.run, uvloop.run):
            try:
                run(send())
                raise SystemExit("not refused")
            except OSError:
                pass
        """,
        tmp_path,
    )
    assert len(offline.refused_connections(tmp_path)) == 2


PLANTED = f"""
    def phone_home():
        s = socket.socket()
        s.settimeout(30)
        try:
            s.connect(("{OUTSIDE}", 80))
        except PermissionError as error:
            # The kernel gives a socket its address in connect: none means it was never asked.
            print(type(error).__name__, s.getsockname())
"""
PLANTED_ANSWER = "EgressRefused ('0.0.0.0', 0)\n"


def assert_planted(folder: Path) -> None:
    (attempt,) = offline.refused_connections(folder)
    assert attempt["event"].endswith("connect")
    assert attempt["target"] == [OUTSIDE, "80"]
    assert any(frame.endswith(" phone_home") for frame in attempt["stack"]), attempt["stack"]
    assert attempt["pid"] != os.getpid()


def test_a_planted_connect_in_our_process_never_reaches_the_kernel(tmp_path: Path) -> None:
    assert ours(textwrap.dedent(PLANTED) + "phone_home()", tmp_path) == PLANTED_ANSWER
    assert_planted(tmp_path)


def test_a_planted_connect_in_a_child_never_reaches_the_kernel(tmp_path: Path) -> None:
    assert child(textwrap.dedent(PLANTED) + "phone_home()", tmp_path) == PLANTED_ANSWER
    assert_planted(tmp_path)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_planted_connect_in_a_grandchild_never_reaches_the_kernel(
    method: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent(PLANTED)
        + textwrap.dedent(f"""
        if __name__ == "__main__":
            import multiprocessing
            worker = multiprocessing.get_context("{method}").Process(target=phone_home)
            worker.start()
            worker.join()
        """)
    )
    done = subprocess.run(
        [sys.executable, script],
        env=offline.child_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == (PLANTED_ANSWER, 0), done.stderr
    assert_planted(tmp_path)


@pytest.mark.parametrize("closed_by", [child, ours])
def test_children_that_libraries_start_by_themselves_are_guarded(
    closed_by: Callable[[str, Path], str], tmp_path: Path
) -> None:
    """vLLM, accelerate and joblib hand on their own os.environ: that has to be enough."""
    closed_by(
        f"""
        import subprocess
        code = "import socket; socket.socket().connect(('{OUTSIDE}', 80))"
        subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        """,
        tmp_path,
    )
    assert [a["target"][0] for a in offline.refused_connections(tmp_path)] == [OUTSIDE]


def test_a_localism_inside_a_guarded_child_records_in_its_own_run(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    close = CLOSE.replace("{!r}", "Path({!r})", 1).format(str(own), (f"http://{OUTSIDE}/v1",))
    assert child(close + textwrap.dedent(KNOCK), tmp_path) == "allowed refused\n"
    assert offline.refused_connections(tmp_path) == []
    assert len(offline.refused_connections(own)) == 1


LOOPBACK = """
    import threading
    from localism import egress

    def exchange(family, address):
        server = socket.socket(family)
        server.bind(address)
        server.listen()
        client = socket.socket(family)
        client.connect(server.getsockname())
        served, _ = server.accept()
        client.sendall(b"hello")
        assert served.recv(5) == b"hello"

    exchange(socket.AF_INET, ("127.0.0.1", 0))
    exchange(socket.AF_INET, ("localhost", 0))
    exchange(socket.AF_INET, ("", 0))
    exchange(socket.AF_UNIX, os.environ["UNIX_SOCKET"])
    exchange(socket.AF_UNIX, "\\0localism-test-%d" % os.getpid())
    socket.getaddrinfo(None, 80)
    socket.getaddrinfo(socket.gethostname(), 80)
    socket.getnameinfo(("127.0.0.1", 80), 0)
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).connect((0, 0))
    for own in egress.own_addresses():
        if ":" not in own:
            exchange(socket.AF_INET, (own, 0))
        elif own == "::1":
            exchange(socket.AF_INET6, (own, 0))

    async def hello(reader, writer):
        writer.write(b"hello")
        writer.close()

    async def served_by_a_loop():
        server = await asyncio.start_server(hello, "localhost", 0)
        port = server.sockets[0].getsockname()[1]
        reader, _ = await asyncio.open_connection("localhost", port)
        assert await reader.read() == b"hello"

    asyncio.run(served_by_a_loop())
    try:
        import uvloop
    except ImportError:
        pass
    else:
        uvloop.run(served_by_a_loop())
    print("served")
"""


def test_servers_and_clients_on_this_machine_work(tmp_path: Path) -> None:
    assert child(LOOPBACK, tmp_path, UNIX_SOCKET=str(tmp_path / "socket")) == "served\n"
    assert offline.refused_connections(tmp_path) == []


def test_vsock_is_refused(tmp_path: Path) -> None:
    if not hasattr(socket, "AF_VSOCK"):
        pytest.skip("this Python has no AF_VSOCK")
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError as error:
        pytest.skip(f"this kernel has no AF_VSOCK: {error}")
    call = "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 9999))"
    assert child(textwrap.dedent(REFUSED).format(call=call), tmp_path).startswith("refused")
    (attempt,) = offline.refused_connections(tmp_path)
    assert attempt["target"] == [f"address family {int(socket.AF_VSOCK)}", "2", "9999"]


@pytest.mark.parametrize(
    "host",
    [None, "", "localhost", b"localhost", "LocalHost", "127.0.0.1", "127.8.9.10", "0.0.0.0",
     "::1", "::1%lo", "::", "::ffff:127.0.0.1", os.uname().nodename, "node1", "NODE1", "node1.",
     "10.1.2.3", "::ffff:10.1.2.3"],
)  # fmt: skip
def test_this_machine_and_named_hosts_are_allowed(host: object) -> None:
    assert egress.is_allowed(host, {"node1", "10.1.2.3"})


def test_names_that_the_hosts_file_gives_to_loopback_are_allowed() -> None:
    lines = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines()]
    names = [name for words in lines if words and words[0].startswith("127.") for name in words[1:]]
    assert [name for name in names if not egress.is_allowed(name.upper(), ())] == []


@pytest.mark.parametrize(
    "host",
    [OUTSIDE, "8.8.8.8", "2001:4860:4860::8888", f"::ffff:{OUTSIDE}", "fe80::1%eth0",
     "64:ff9b::7f00:1", "255.255.255.255", "example.com", "localhost.example.com", "node10",
     "127.0.0.1.example.com", "127.0.0.1%example.com", "10.1.2.30", b"example.com"],
)  # fmt: skip
def test_everything_else_is_not_allowed(host: object) -> None:
    assert not egress.is_allowed(host, {"node1", "10.1.2.3"})


def test_an_endpoint_on_another_loopback_address_answers(tmp_path: Path) -> None:
    printed = ours(
        """
        import http.server, threading, urllib.request
        server = http.server.HTTPServer(("127.0.0.2", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(urllib.request.urlopen(f"http://127.0.0.2:{server.server_port}/").status)
        """,
        tmp_path,
        ("http://127.0.0.2:8000/v1",),
    )
    assert printed.endswith("200\n")
    assert offline.refused_connections(tmp_path) == []


# Connecting a datagram socket sends nothing, so it shows the guard's answer and no more.
KNOCK = f"""
    def knock(host):
        try:
            socket.socket(type=socket.SOCK_DGRAM).connect((host, 80))
        except PermissionError:
            return "refused"
        except OSError:
            pass  # no route, in a network namespace
        return "allowed"
    print(knock("{OUTSIDE}"), knock("203.0.113.9"))
"""


def test_an_endpoint_by_address_is_allowed_and_its_neighbours_are_not(tmp_path: Path) -> None:
    endpoints = (f"http://{OUTSIDE}:8000/v1",)
    assert ours(KNOCK, tmp_path, endpoints) == "allowed refused\n"
    inherited = {egress.ALLOWED_VARIABLE: OUTSIDE}
    assert child(KNOCK, tmp_path, **inherited) == "allowed refused\n"


def test_an_endpoint_by_name_is_allowed_at_the_address_that_it_has_now(tmp_path: Path) -> None:
    moved = f"""
        answers = iter(["203.0.113.1", "{OUTSIDE}"])  # a name server whose answer changes

        def getaddrinfo(host, *rest):
            assert host == "node1", host
            return [(2, 1, 6, "", (next(answers), 0))]

        socket.getaddrinfo = getaddrinfo
    """
    code = textwrap.dedent(moved) + textwrap.dedent(KNOCK).replace(
        "print(", "print(knock('203.0.113.1'), "
    )
    code = code.replace(', knock("203.0.113.9")', "")
    assert ours(code, tmp_path, ("http://node1:8000/v1",)) == "allowed allowed\n"


def test_a_run_may_reach_the_hosts_of_its_configuration_and_no_others(tmp_path: Path) -> None:
    tables = {
        "teacher": {"endpoints": [f"http://{OUTSIDE}:8000/v1"], "served_name": "teacher"},
        "judge": {"endpoints": ["http://203.0.113.7/v1"], "served_name": "judge"},
        "student": {"path": "embedded:student"},
        "train": {"rendezvous": "203.0.113.8:29400"},
    }
    code = f"""
        import io
        from localism import run
        from localism.models_toml import validate
        from localism.progress import Progress
        from localism.recipe import Recipe
        asked = Recipe(Path("models.toml"), (), validate({tables!r}, "models.toml"))
        with run.opened(Path({str(tmp_path / "run")!r}), asked, Progress(io.StringIO())):
            print(*map(knock, ["203.0.113.7", "203.0.113.8", "203.0.113.6"]))
            print(os.environ["LOCALISM_EGRESS_ALLOWED"])
    """
    printed = ours(textwrap.dedent(KNOCK) + textwrap.dedent(code), tmp_path)
    assert printed.splitlines()[1:] == [
        "allowed allowed refused",
        f"{OUTSIDE},203.0.113.7,203.0.113.8",
    ]


@pytest.mark.parametrize("url", ["node1:8000/v1", "", "http://", "http://[::1"])
def test_an_endpoint_without_a_host_is_an_error_with_a_fix(url: str) -> None:
    with pytest.raises(ConfigError, match="not a base URL"):
        offline.host_of(url)


def test_lines_of_twenty_children_never_mix(tmp_path: Path) -> None:
    code = """
        for attempt in range(25):
            try:
                socket.getaddrinfo(f"{os.getpid()}-" + "x." * 3000 + "y", 80)
            except PermissionError:
                pass
    """
    children = [start(code, tmp_path) for _ in range(20)]
    for process in children:
        assert process.wait(120) == 0
        process.communicate()
    attempts = offline.refused_connections(tmp_path)
    expected = sorted(f"{process.pid}-{'x.' * 3000}y" for process in children for _ in range(25))
    assert sorted(attempt["target"][0] for attempt in attempts) == expected


def test_a_line_cut_short_still_counts(tmp_path: Path) -> None:
    log = tmp_path / offline.LOG
    log.write_text('{"time": 1.0, "target": ["198.51\n{"time": 2.0, "target": ["a"]}\n[]\n')
    assert [a["target"] for a in offline.refused_connections(tmp_path)] == [
        ['{"time": 1.0, "target": ["198.51'], ["a"], ["[]"],
    ]  # fmt: skip


def test_what_cannot_be_recorded_is_refused_all_the_same(tmp_path: Path) -> None:
    code = textwrap.dedent(REFUSED).format(call=f"socket.socket().connect(('{OUTSIDE}', 80))")
    assert child(code, tmp_path / "no such folder") == "refused EgressRefused\n"


def test_the_users_own_sitecustomize_still_runs(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "sitecustomize.py").write_text("import builtins; builtins.theirs = __file__\n")
    before = os.environ | {"PYTHONPATH": f"{theirs}{os.pathsep}/elsewhere"}
    assert printed_by_child_of(before, tmp_path, "print(theirs)") == f"{theirs}/sitecustomize.py\n"


def test_an_error_in_the_users_sitecustomize_leaves_the_guard_standing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise RuntimeError('theirs')\n")
    before = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = textwrap.dedent(PLANTED) + "phone_home()"
    assert printed_by_child_of(before, tmp_path, PRELUDE + code) == PLANTED_ANSWER


def printed_by_child_of(environment: dict[str, str], folder: Path, code: str) -> str:
    """What a child printed whose parent had another environment than these tests."""
    parent = (
        "import subprocess, sys; from pathlib import Path; from localism import offline\n"
        "environment = offline.child_environment(Path(sys.argv[1]))\n"
        "subprocess.run([sys.executable, '-c', sys.argv[2]], env=environment, check=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent, str(folder), code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_has_the_variables_no_proxy_and_its_own_pythonpath(tmp_path: Path) -> None:
    before = os.environ | {
        "HF_HUB_OFFLINE": "0", "https_proxy": "http://127.0.0.1:3128", "ALL_PROXY": "socks5://x",
        "PYTHONPATH": f"/first{os.pathsep}{os.pathsep}/last",
        egress.LOG_VARIABLE: "/another/run",
    }  # fmt: skip
    printed = printed_by_child_of(
        before, tmp_path, "import os, json; print(json.dumps({**os.environ}))"
    )
    environment = json.loads(printed)
    assert offline.AIR_GAP.items() <= environment.items()
    assert [name for name in environment if name.lower().endswith("_proxy")] == []
    assert environment["PYTHONPATH"].split(os.pathsep)[1:] == ["/first", "", "/last"]
    assert environment[egress.LOG_VARIABLE] == str(tmp_path / offline.LOG)


def test_the_offline_switches_are_understood_by_the_libraries(tmp_path: Path) -> None:
    code = """
        from huggingface_hub import constants
        import datasets.config
        print(constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_TELEMETRY,
              datasets.config.HF_HUB_OFFLINE)
    """
    assert child(code, tmp_path) == "True True True\n"


def test_a_second_run_in_one_process_has_its_own_log_and_endpoints(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    again = f"offline.close_air_gap(Path({str(second)!r}), ['203.0.113.9'])\n"
    code = textwrap.dedent(KNOCK) + again + f"print(knock('{OUTSIDE}'), knock('203.0.113.9'))"
    printed = ours(code, first, (f"http://{OUTSIDE}:8000/v1",))
    assert printed == "allowed refused\nrefused allowed\n"
    assert [a["target"][0] for a in offline.refused_connections(first)] == ["203.0.113.9"]
    assert [a["target"][0] for a in offline.refused_connections(second)] == [OUTSIDE]


def test_a_child_whose_guard_cannot_stand_does_not_run(tmp_path: Path) -> None:
    site = tmp_path / "airgap_site"
    site.mkdir()
    source = Path(offline.__file__).parent / "airgap_site" / "sitecustomize.py"
    (site / "sitecustomize.py").write_text(source.read_text())
    (tmp_path / "egress.py").write_text("raise ImportError('broken')\n")
    done = subprocess.run(
        [sys.executable, "-c", "print('it ran')"],
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (70, "")
    assert "the socket guard could not be set up" in done.stderr


@pytest.mark.parametrize("flag", ["-S", "-I", "-E"])
def test_a_child_that_skips_sitecustomize_is_beyond_the_guard(flag: str, tmp_path: Path) -> None:
    """A limit, stated in docs/air-gap.md; the network namespace is what holds such a child."""
    assert child(KNOCK, tmp_path, flag) == "allowed allowed\n"
    assert offline.refused_connections(tmp_path) == []
