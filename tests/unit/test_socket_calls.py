"""What is read of a trace: nothing that leaves is taken for something that stays."""

import pytest
from socket_calls import calls_of, read_lines

V4 = '{sa_family=AF_INET, sin_port=htons(%d), sin_addr=inet_addr("%s")}'
V6 = (
    "{sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), "
    'inet_pton(AF_INET6, "%s", &sin6_addr), sin6_scope_id=0}'
)
HERE4, THERE4 = V4 % (80, "127.0.0.1"), V4 % (80, "198.51.100.1")
UNIX = '{sa_family=AF_UNIX, sun_path="/run/service"}'
MESSAGE = (
    '{msg_name=%s, msg_namelen=16, msg_iov=[{iov_base="x", iov_len=1}], msg_iovlen=1, '
    "msg_controllen=0, msg_flags=0}"
)
MANY = "sendmmsg(3, [{msg_hdr=%s, msg_len=1}, {msg_hdr=%s, msg_len=1}], 2, 0) = 2"
ABRIDGED = MANY.replace("], 2", ", ...], 9")
KERNEL = "{sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}"


def quoted(text: str) -> str:
    """As strace writes a text within another."""
    return text.replace('"', '\\"')


LEAVING = {
    "TCP": f"connect(3, {THERE4}, 16) = -1 EINPROGRESS (Operation now in progress)",
    "one that was refused": f"connect(3, {THERE4}, 16) = -1 EPERM (Operation not permitted)",
    "a datagram socket that only asks for a route": f"connect(3, {V4 % (80, '8.8.8.8')}, 16) = 0",
    "a name server": f"connect(4, {V4 % (53, '10.0.0.2')}, 16) = 0",
    "IPv6": f"connect(3, {V6 % '2001:db8::1'}, 28) = 0",
    "IPv4 in IPv6": f"connect(3, {V6 % '::ffff:198.51.100.1'}, 28) = 0",
    "a datagram without connect": f'sendto(3, "x", 1, 0, {THERE4}, 16) = 1',
    "a datagram over IPv6": f'sendto(3, "x"..., 900, MSG_NOSIGNAL, {V6 % "ff02::fb"}, 28) = 900',
    "fast open": f'sendto(3, "GET", 3, MSG_FASTOPEN, {THERE4}, 16) = 3',
    "sendmsg": f"sendmsg(3, {MESSAGE % THERE4}, 0) = 1",
    "the second of two": MANY % (MESSAGE % HERE4, MESSAGE % THERE4),
    "data that looks like loopback": f'sendto(3, "{quoted(HERE4)}", 9, 0, {THERE4}, 16) = 9',
    "another family": "connect(3, {sa_family=AF_VSOCK, svm_cid=2, svm_port=9}, 16) = 0",
    "the wire": 'sendto(3, "x", 1, 0, {sa_family=AF_PACKET, sll_protocol=htons(ETH_P_IP), '
        "sll_ifindex=2, sll_hatype=ARPHRD_ETHER, sll_addr=[0xff, 0xff]}, 20) = 1",
    "a datagram to no family, which IPv4 takes":
        r'sendto(3, "x", 1, 0, {sa_family=AF_UNSPEC, sa_data="\0\0\306\63d\1"}, 16) = 1',
    "an unknown family": r'connect(3, {sa_family=0x4d /* AF_??? */, sa_data="\0"}, 16) = 0',
    "an address that can't be read": "connect(3, 0x7ffd5e0, 16) = 0",
    "a message that can't be read": "sendmsg(3, 0x7ffd5e0, 0) = 1",
    "messages that were left out": ABRIDGED % (MESSAGE % HERE4, MESSAGE % HERE4),
    "what ends too soon": 'sendto(3, "x", 1',
    "a ring": "io_uring_setup(256, {flags=0, sq_entries=256}) = 4",
}  # fmt: skip
STAYING = {
    "loopback": f"connect(3, {V4 % (80, '127.8.9.10')}, 16) = 0",
    "loopback over IPv6": f"connect(3, {V6 % '::1'}, 28) = 0",
    "loopback in IPv6": f"connect(3, {V6 % '::ffff:127.0.0.1'}, 28) = 0",
    "no address, which is loopback": f"connect(3, {V4 % (80, '0.0.0.0')}, 16) = 0",
    "a Unix socket": f"connect(3, {UNIX}, 110) = 0",
    "a path that looks like an address":
        f'connect(3, {{sa_family=AF_UNIX, sun_path="}}, {quoted(THERE4)}"}}, 9) = 0',
    "one without a name": 'connect(3, {sa_family=AF_UNIX, sun_path=@"12345"}, 9) = 0',
    "the kernel": f"connect(3, {KERNEL}, 12) = 0",
    "a question to the kernel, in full": "sendto(16, [{nlmsg_len=20, nlmsg_type=RTM_GETLINK}, "
        f"{{ifi_family=AF_UNSPEC, ...}}], 20, 0, {KERNEL}, 12) = 20",
    "data on a connection": 'sendto(3, "hi", 2, MSG_NOSIGNAL, NULL, 0)          = 2',
    "data that looks like an address": 'sendto(3, "{sa_family=AF_INET, x}", 9, 0, NULL, 0) = 9',
    "a message on a connection": f"sendmsg(3, {MESSAGE % 'NULL'}, 0) = 1",
    "messages on connections": MANY % (MESSAGE % "NULL", MESSAGE % "NULL"),
    "an end of a connection": r'connect(3, {sa_family=AF_UNSPEC, sa_data="\0\0"}, 16) = 0',
}  # fmt: skip


@pytest.mark.parametrize("what", LEAVING)
def test_what_leaves_is_seen(what: str) -> None:
    assert any(call.leaves for call in calls_of(LEAVING[what]))


@pytest.mark.parametrize("what", STAYING)
def test_what_stays_is_seen_as_that(what: str) -> None:
    calls = calls_of(STAYING[what])
    assert calls and not any(call.leaves for call in calls)


@pytest.mark.parametrize(
    "line",
    ["connect(3, 0x8, 16) = -1 EFAULT (Bad address)", "io_uring_setup(8, 0x7f) = -1 ENOSYS (No)",
     'execve("/bin/true", ["connect(3"], 0x7 /* 3 vars */) = 0'],
)  # fmt: skip
def test_what_the_kernel_never_took_is_no_call(line: str) -> None:
    assert calls_of(line) == []


def test_calls_that_others_came_between_are_put_together() -> None:
    trace = f"""
10 execve("/usr/bin/python3", ["python3", "-m", "localism", "run-all"], 0x7ff /* 9 vars */) = 0
10 connect(3, {THERE4}, 16 <unfinished ...>
11 connect(4, {HERE4}, 16) = 0
10 <... connect resumed>) = -1 EINPROGRESS (Operation now in progress)
11 sendmmsg(3,  <unfinished ...>
10 sendto(5, "x", 1, 0, {HERE4}, 16 <unfinished ...>
11 <... sendmmsg resumed>[{{msg_hdr={MESSAGE % THERE4}, msg_len=1}}], 1, 0) = 1
10 +++ killed by SIGKILL +++
12 sendto(5, "x", 1, 0, {THERE4}, 16 <unfinished ...>
"""
    calls = read_lines(trace.splitlines()).calls
    assert [(call.name, call.leaves) for call in calls] == [
        ("connect", False), ("connect", True), ("sendmmsg", True), ("sendto", False),
        ("sendto", True),
    ]  # fmt: skip


def test_calls_are_counted_by_what_ran_and_numbers_that_come_again_are_others() -> None:
    """A child's first calls may be written ahead of the line that tells of its start."""
    trace = f"""
10 execve("/nowhere/python3", ["python3"], 0x7ff /* 9 vars */) = -1 ENOENT (No such file)
10 execve("/usr/bin/python3.11", ["/venv/bin/python", "-I", "/x/keeper.py"], 0x7 /* 9 vars */) = 0
10 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD <unfinished ...>
11 connect(4, {HERE4}, 16) = 0
10 <... clone resumed>, child_tidptr=0x7f) = 11
11 execve("/usr/bin/python3.11", ["python3", "-m", "vllm.server"], 0x7 /* 9 vars */) = 0
11 clone3({{flags=CLONE_VM|CLONE_THREAD, stack_size=0x7fff80}} => {{parent_tid=[12]}}, 88) = 12
12 connect(4, {HERE4}, 16) = 0
12 +++ exited with 0 +++
11 vfork() = 12
12 execve("/usr/bin/curl", ["curl", "http://x"], 0x7 /* 9 vars */) = 0
12 connect(4, {THERE4}, 16) = 0
11 execve("/x/python", ["python", "-c", "from multiprocessing.spawn import x"], 0x7 /* 9 */) = 0
"""
    seen = read_lines(trace.splitlines())
    assert [(call.program, call.leaves) for call in seen.calls] == [
        ("keeper.py", False), ("vllm.server", False), ("curl", True),
    ]  # fmt: skip
    assert seen.processes == {"curl": 1, "keeper.py": 1, "vllm.server (spawned)": 1}
    assert seen.threads == 4
