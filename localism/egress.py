"""The socket guard: refuses and records every connection that would leave this machine.

Standard library only and quick to load: it runs at the start of every Python child, engines and
trainers included, before any of their code (airgap_site/sitecustomize.py). It sees what passes
Python's socket module. Libraries that open sockets in C++ (ZeroMQ, gloo, NCCL) do not pass it;
that they stay on this machine is what the test in a network namespace shows.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Collection
from ipaddress import ip_address
from pathlib import Path
from typing import Any

LOG_VARIABLE = "LOCALISM_EGRESS_LOG"
ALLOWED_VARIABLE = "LOCALISM_EGRESS_ALLOWED"
STACK_FRAMES = 8
_ADDRESS_EVENTS = ("socket.connect", "socket.sendto", "socket.sendmsg")
_NAME_EVENTS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")

_installed: Path | None = None


class EgressRefused(PermissionError):
    """A connection was refused because it would have left this machine."""


def is_allowed(host: Any, allowed: Collection[str]) -> bool:
    """Whether a host name or address is this machine, or one of the allowed hosts."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in (None, "", "localhost") or host in allowed:
        return True
    try:
        address = ip_address(str(host).split("%")[0])
    except ValueError:
        return str(host) == os.uname().nodename
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def install(log: Path, allowed: Collection[str] = ()) -> None:
    """Guard this process from now on; a second call changes nothing (audit hooks stay for good)."""
    global _installed
    if _installed is not None:
        return
    _installed = log
    hosts = frozenset(allowed) | _addresses_of(allowed)

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _ADDRESS_EVENTS:
            address = arguments[1]
            if isinstance(address, tuple) and not is_allowed(address[0], hosts):
                _refuse(log, event, address[:2])
        elif event in _NAME_EVENTS and not is_allowed(arguments[0], hosts):
            _refuse(log, event, arguments[:2])

    sys.addaudithook(guard)


def install_from_environment() -> None:
    """Guard this process as the variables that its parent set say."""
    log = os.environ.get(LOG_VARIABLE)
    if log:
        install(Path(log), [h for h in os.environ.get(ALLOWED_VARIABLE, "").split(",") if h])


def attempts(log: Path) -> list[dict[str, Any]]:
    """Every refused attempt of a run: time, pid, program, event, target and stack."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines() if line]


def _addresses_of(hosts: Collection[str]) -> frozenset[str]:
    """The addresses of allowed host names, looked up before the guard stands."""
    import socket

    found = set()
    for host in hosts:
        try:
            found |= {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
        except OSError:
            pass  # an unknown name stays allowed by name; connecting to it says what is wrong
    return frozenset(found)


def _refuse(log: Path, event: str, target: tuple[Any, ...]) -> None:
    stack = [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_stack()[:-2][-STACK_FRAMES:]
    ]
    line = json.dumps(
        {
            "time": time.time(),
            "pid": os.getpid(),
            "program": " ".join(sys.argv[:3]),
            "event": event,
            "target": [str(part) for part in target],
            "stack": stack,
        }
    )
    # One O_APPEND write a line: lines of several processes never mix.
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)
    raise EgressRefused(f"air gap: {event} to {target[0]} refused; recorded in {log}")
