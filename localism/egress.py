"""The socket guard: refuses and records every connection that would leave this machine.

It runs at the start of every Python child, engines and trainers included, before any of their code
(airgap_site/sitecustomize.py); so it is quick to load and needs the standard library alone. It is a
guard against software that phones home, not a sandbox: it sees what passes Python's socket module
and uvloop. docs/air-gap.md says what it does not see.
"""

import _socket
import json
import os
import sys
import time
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

LOG_VARIABLE = "LOCALISM_EGRESS_LOG"
ALLOWED_VARIABLE = "LOCALISM_EGRESS_ALLOWED"
CHILD_VARIABLE = "LOCALISM_EGRESS_CHILD"  # what a process is for: a stage, and what it started
STANDING = "localism_egress"  # what airgap_site calls its copy of this module in sys.modules
STACK_FRAMES = 40  # requests and urllib3 alone put ten frames over the caller
# connect_ex is audited as connect, gethostbyname_ex as gethostbyname (CPython 3.11 to 3.13).
_ADDRESS_EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_NAME_EVENTS = frozenset(
    {
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
        "socket.getnameinfo",
    }
)
_INTERNET = (_socket.AF_INET, _socket.AF_INET6)
_WITHIN_THIS_KERNEL = (_socket.AF_UNIX, _socket.AF_NETLINK)


class EgressRefused(PermissionError):
    """A connection was refused because it would have left this machine."""


class _Guard:
    """What the hook goes by. A plain class: dataclasses would double the cost of every child."""

    def __init__(self, log: Path, allowed: Collection[str]) -> None:
        self.log = str(log)
        # Beside this machine: names and addresses.
        self.hosts = frozenset(filter(None, map(_plain, allowed)))
        # What the names among them were found to mean.
        self.addresses: set[str] = set()


_guard: _Guard | None = None
_wrapped: set[str] = set()


def install(log: Path, allowed: Collection[str] = ()) -> None:
    """Guard this process from now on; a later call aims the guard at another log and other hosts.

    The hook itself stays until the process ends: Python has no way to take one off.
    """
    standing = sys.modules.get(STANDING)
    if standing is not None and __name__ != STANDING:
        # This localism is itself a guarded child: one guard, and one that writes to its own run.
        standing.install(log, allowed)
        return
    global _guard
    is_first = _guard is None
    _guard = _Guard(log, allowed)
    if is_first:
        sys.addaudithook(_on_event)


def install_from_environment() -> None:
    """Guard this process as the variables that its parent set say."""
    log = os.environ.get(LOG_VARIABLE)
    if log:
        install(Path(log), os.environ.get(ALLOWED_VARIABLE, "").split(","))


def is_allowed(host: Any, allowed: Collection[str]) -> bool:
    """Whether a host name or address is this machine, or one of the allowed hosts."""
    name = _plain(host)
    if name in ("", "localhost", os.uname().nodename.lower()) or name in allowed:
        return True
    if _is_allowed_address(name, allowed):
        return True
    return any(_is_allowed_address(text, allowed) for text in _in_hosts_file(name))


def _is_allowed_address(text: str, allowed: Collection[str]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    # Linux takes the unspecified address for loopback when it is connected to.
    if mapped.is_loopback or mapped.is_unspecified or str(mapped) in allowed:
        return True
    return str(mapped) in own_addresses()


def _in_hosts_file(name: str) -> list[str]:
    """Addresses that /etc/hosts gives a name, such as this machine's full name."""
    lines = [line.partition("#")[0].lower().split() for line in _lines("/etc/hosts")]
    return [words[0] for words in lines if name in words[1:]]


def own_addresses() -> set[str]:
    """Addresses of this machine's interfaces; packets to them are delivered without leaving it."""
    found, previous = set(), ""
    for line in _lines("/proc/net/fib_trie"):
        if line.strip() == "/32 host LOCAL":
            found.add(previous.split()[-1])
        previous = line
    found |= {str(IPv6Address(int(line.split()[0], 16))) for line in _lines("/proc/net/if_inet6")}
    return found


def record(attempt: dict[str, Any]) -> None:
    """Add what a child without a guard was refused to the log of this process, if that has one."""
    standing = sys.modules.get(STANDING)
    if standing is not None and __name__ != STANDING:
        standing.record(attempt)
    elif _guard is not None:
        _append(_guard.log, attempt)


def attempts(log: Path) -> list[dict[str, Any]]:
    """Every refused attempt of a run: time, pid, child, program, event, target and stack."""
    if not log.exists():
        return []
    return [_parsed(line) for line in log.read_text(errors="replace").splitlines() if line.strip()]


# ---- what is seen --------------------------------------------------------------------------


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook. Called for every event of the process, imports too: the first test is it."""
    if not event.startswith("socket."):
        return
    if event in _ADDRESS_EVENTS:
        _check_address(event, arguments[0].family, arguments[1])
    elif event in _NAME_EVENTS:
        target = arguments[0] if event == "socket.getnameinfo" else arguments
        _check(event, target[0], target[:2])
    elif event == "socket.__new__":
        _wrap_silent_lookups()


def _wrap_silent_lookups() -> None:
    """Check the host before calls that look a name up in C, ahead of any event or without one.

    socket.connect(("name", 1)) asks the name server first and is audited then; uvloop does both
    without an event. Modules are wrapped at the first socket made after their import.
    """
    if "socket" not in _wrapped and hasattr(sys.modules.get("socket"), "socket"):
        _wrapped.add("socket")
        for method in ("connect", "connect_ex", "sendto", "sendmsg", "bind"):
            _wrap(sys.modules["socket"].socket, method, _address_of_socket_call)
    if "uvloop" not in _wrapped and hasattr(sys.modules.get("uvloop"), "Loop"):
        _wrapped.add("uvloop")
        loop = sys.modules["uvloop"].Loop
        _wrap(loop, "getaddrinfo", lambda _, host=None, *a, **k: (host,))
        _wrap(loop, "getnameinfo", lambda _, address, *a, **k: address)
        _wrap(loop, "create_connection", lambda _, protocol, host=None, *a, **k: (host,))
        _wrap(loop, "create_datagram_endpoint", _remote_of_datagrams)


def _wrap(owner: type, method: str, target_of: Callable[..., tuple[Any, ...] | None]) -> None:
    original = getattr(owner, method)
    event = f"{owner.__module__}.{owner.__name__}.{method}"

    def checked(*arguments: Any, **keywords: Any) -> Any:
        target = target_of(*arguments, **keywords)
        if target:
            _check(event, target[0], target[:2])
        return original(*arguments, **keywords)

    checked.__name__, checked.__doc__ = method, original.__doc__
    setattr(owner, method, checked)


def _address_of_socket_call(socket: Any, *arguments: Any) -> tuple[Any, ...] | None:
    # In all five methods the address comes last, and nothing else in that place is a tuple.
    is_address = arguments and isinstance(arguments[-1], tuple) and socket.family in _INTERNET
    return arguments[-1] if is_address else None


def _remote_of_datagrams(
    _loop: Any, _protocol: Any, _local: Any = None, remote_addr: Any = None, **_: Any
) -> tuple[Any, ...] | None:
    return remote_addr if isinstance(remote_addr, tuple) else None


# ---- what is refused -----------------------------------------------------------------------


def _check_address(event: str, family: int, address: Any) -> None:
    if address is None or family in _WITHIN_THIS_KERNEL:  # None: sendmsg on a connected socket
        return
    if family in _INTERNET:
        _check(event, address[0], address[:2])
    else:  # vsock reaches the hypervisor, packet sockets the wire, and so on
        _refuse(event, (f"address family {int(family)}", *address))


def _check(event: str, host: Any, target: tuple[Any, ...]) -> None:
    assert _guard is not None
    if not is_allowed(host, _guard.hosts) and not _is_allowed_by_address(host, _guard):
        _refuse(event, target)


def _is_allowed_by_address(host: Any, guard: _Guard) -> bool:
    """Whether this is an address of an allowed name; names may move, so they are looked up anew."""
    if _plain(host) in guard.addresses:
        return True
    import socket

    for name in guard.hosts:
        try:
            guard.addresses.update(str(entry[4][0]) for entry in socket.getaddrinfo(name, None))
        except (OSError, UnicodeError):
            pass  # not known now; connecting to it by name says what is wrong
    return _plain(host) in guard.addresses


def _refuse(event: str, target: tuple[Any, ...]) -> None:
    assert _guard is not None
    shown = [
        part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in target
    ]
    try:
        _append(_guard.log, _attempt(event, shown))
        note = f"recorded in {_guard.log}"
    except OSError as error:
        note = f"and could not be recorded: {error}"
    raise EgressRefused(f"air gap: {event} to {shown[0]} refused; {note}")


def _attempt(event: str, target: list[str]) -> dict[str, Any]:
    return {
        "time": time.time(),
        "pid": os.getpid(),
        "child": os.environ.get(CHILD_VARIABLE, ""),
        "program": _program(),
        "event": event,
        "target": target,
        "stack": _stack(),
    }


def _program() -> str:
    """The first words of the command; of a worker of multiprocessing its name too."""
    words = " ".join(getattr(sys, "argv", [])[:3])
    for library in ("multiprocessing.process", "multiprocess.process"):
        workers = sys.modules.get(library)
        name = workers.current_process().name if workers else "MainProcess"
        if name != "MainProcess":
            return f"{words} ({name})"
    return words


def _append(log: str, attempt: dict[str, Any]) -> None:
    # One O_APPEND write a line: lines of several processes never mix.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, json.dumps(attempt).encode() + b"\n")
    finally:
        os.close(descriptor)


def _stack() -> list[str]:
    """Where the attempt came from, outermost first, without the frames of this module."""
    found: list[str] = []
    frame = sys._getframe()
    while frame is not None and len(found) < STACK_FRAMES:
        code = frame.f_code
        if code.co_filename != __file__:
            found.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1]


# ---- small change --------------------------------------------------------------------------


def _plain(host: Any) -> str:
    """A host as it is compared: text, lower case, no scope of an IPv6 address, no last dot."""
    if isinstance(host, (bytes, bytearray)):
        host = host.decode(errors="replace")
    text = "" if host is None else str(host).lower().rstrip(".")
    return text.split("%")[0] if ":" in text else text


def _lines(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().splitlines()
    except OSError:
        return []  # a kernel without IPv6, or a /proc that is not mounted


def _parsed(line: str) -> dict[str, Any]:
    """A line of the log; one that was cut short by a full disk still counts as an attempt."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if isinstance(entry, dict):
        return entry
    return {
        "time": None,
        "pid": None,
        "child": "unknown",
        "program": "",
        "event": "unreadable line",
        "target": [line],
        "stack": [],
    }
