"""Runs a command in a new network namespace whose only interface is loopback, up.

Nothing that the command or its children do can reach another machine there, whatever language they
are written in. From a test: `subprocess.run(isolated([...]))`, after asking reason_not_permitted().
As a script, inside the new namespace: python netns.py COMMAND... brings loopback up and becomes it.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Linux's <net/if.h> and <bits/ioctls.h>. By ioctl, because iproute2 is missing in slim images.
GET_FLAGS, SET_FLAGS, IS_UP = 0x8913, 0x8914, 0x1
INTERFACE_REQUEST = "16sh22x"


def isolated(command: list[str]) -> list[str]:
    """The command to run instead; RuntimeError where namespaces are not permitted."""
    reason = reason_not_permitted()
    if reason:
        raise RuntimeError(reason)
    return [*_entrance()[0], *command]


def reason_not_permitted() -> str | None:
    """Why isolated() can't work here, for pytest.skip; None where it can."""
    return _entrance()[1]


@cache
def _entrance() -> tuple[list[str], str | None]:
    unshare = shutil.which("unshare")
    if unshare is None:
        return [], "the program unshare (util-linux) is not installed"
    reasons = []
    # Root needs no user namespace; others, and root in many containers, get in through one.
    for flags in ("-n", "-rn"):
        # -I: this runs before the command and has no use for its PYTHONPATH.
        entrance = [unshare, flags, sys.executable, "-I", str(Path(__file__).resolve())]
        tried = subprocess.run([*entrance, "true"], capture_output=True, text=True)
        if tried.returncode == 0:
            return entrance, None
        reasons.append(f"unshare {flags}: {(tried.stderr.strip() or 'failed').splitlines()[-1]}")
    return [], "; ".join(reasons)


# ---- two machines ------------------------------------------------------------------------------


class Machine(NamedTuple):
    """A namespace that sees one other and nothing else."""

    entrance: list[str]
    """Put before a command, it runs there."""
    address: str
    """IPv4."""
    interface: str
    """Name of its end of the cable."""


@cache
def reason_not_joined() -> str | None:
    """Why joined() can't work here, for pytest.skip; None where it can."""
    if shutil.which("ip") is None:
        return "the program ip (iproute2) is not installed"
    try:
        with joined():
            return None
    except subprocess.CalledProcessError as error:
        return f"{' '.join(error.cmd)}: {error.stderr.strip()}"


@contextmanager
def joined() -> Iterator[tuple[Machine, Machine]]:
    """Two namespaces with a cable (veth) between them."""
    tag = f"{os.getpid():x}"
    names, ends = [f"lm{tag}{side}" for side in "ab"], [f"lv{tag}{side}" for side in "ab"]
    addresses = ["10.213.77.1", "10.213.77.2"]
    made: list[str] = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
        pair = ["link", "add", ends[0], "netns", names[0], "type", "veth"]
        _ip(*pair, "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, addresses, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        first, second = (
            Machine(["ip", "netns", "exec", name], address, end)
            for name, address, end in zip(names, addresses, ends, strict=True)
        )
        yield first, second
    finally:
        for name in made:
            _ip("netns", "del", name)


def processes(machine: Machine, name: str) -> dict[int, float]:
    """Processes of a machine whose command holds a name, with their CPU seconds."""
    space = os.stat(f"/run/netns/{machine.entrance[-1]}").st_ino
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.stat(entry / "ns/net").st_ino == space:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if name in command and fields[0] != "Z":
                    ticks = int(fields[11]) + int(fields[12])
                    found[int(entry.name)] = ticks / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue  # it ended meanwhile
    return found


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def raise_loopback() -> None:
    """Bring the interface lo of this namespace up, and with it 127.0.0.0/8 and ::1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack(INTERFACE_REQUEST, b"lo", 0)
        name, flags = struct.unpack(INTERFACE_REQUEST, fcntl.ioctl(any_socket, GET_FLAGS, request))
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack(INTERFACE_REQUEST, name, flags | IS_UP))


if __name__ == "__main__":
    raise_loopback()
    os.execvp(sys.argv[1], sys.argv[1:])
