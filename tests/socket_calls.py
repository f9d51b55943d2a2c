"""What strace saw of a program and of all that it started -> each socket call and where it went.

    subprocess.run(traced([...], file)); [call for call in read(file).calls if call.leaves]

The kernel's own list: in whatever language a call was written, it is here. What can't be read
counts as leaving, so that a line which this module does not understand fails a proof.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

SENDING = ("connect", "sendto", "sendmsg", "sendmmsg")
RING = "io_uring_setup"  # a ring connects and sends without a system call for each
STARTING = ("execve", "clone", "clone3", "fork", "vfork")
UNREADABLE = "unreadable"
SPAWNED = " (spawned)"
# The kernel did not take such an address either.
NOT_TAKEN = re.compile(r"\) += -1 (EFAULT|EINVAL|EBADF|ENOTSOCK)\b")

_LINE = re.compile(r"(\d+) +(.*)")
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_UNFINISHED = " <unfinished ...>"
_ENDED = re.compile(r"\+\+\+ (exited|killed|superseded)")
# Texts between quotes, with what makes one an address in front.
_TEXT = re.compile(r'(inet_addr\(|inet_pton\(AF_INET6, |sun_path=@?)?"((?:[^"\\]|\\.)*)"(\.\.\.)?')
_ADDRESS = r"(NULL|\{sa_family=[^{}]*\})"
# Where a call has its addresses, once the texts are out of the way. Payloads for the kernel itself
# (netlink) are written out as structures, so that the place counts.
_PLACES = {
    "connect": re.compile(r"^connect\(\d+, (\{sa_family=[^{}]*\}), \d+"),
    "sendto": re.compile(_ADDRESS + r", \d+(?:\) += .*)?$"),
    "sendmsg": re.compile(r"^sendmsg\(\d+, \{msg_name=" + _ADDRESS + ", msg_namelen="),
    "sendmmsg": re.compile(r"msg_hdr=\{msg_name=" + _ADDRESS + ", msg_namelen="),
}
_HOST = re.compile(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]*)"')
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")


class Call(NamedTuple):
    """One destination of one call."""

    program: str
    """What ran there: a module, a script or the name of a program."""
    name: str
    """The system call."""
    family: str
    """AF_INET and so on; empty where the socket was connected before, or `unreadable`."""
    address: str
    """Of the internet families; the path of a Unix socket."""
    port: int | None
    line: str
    """As strace wrote it."""

    @property
    def leaves(self) -> bool:
        """Whether it names anything but this machine, or nothing that can be read."""
        if self.family in ("", "AF_UNIX", "AF_NETLINK"):
            return False
        if self.family == "AF_UNSPEC":
            # connect dissolves a connection with it; a datagram goes where IPv4 would take it.
            return self.name != "connect"
        if self.family not in ("AF_INET", "AF_INET6"):
            return True
        address = ip_address(self.address)
        mapped = getattr(address, "ipv4_mapped", None) or address
        # Linux takes the unspecified address for loopback.
        return not (mapped.is_loopback or mapped.is_unspecified)


class Seen(NamedTuple):
    """A whole trace."""

    calls: list[Call]
    processes: dict[str, int]
    """Program -> how many processes ran it."""
    threads: int
    """Threads and processes in all."""


@cache
def reason_not_here() -> str | None:
    """Why traced() can't work here, for pytest.skip; None where it can."""
    if shutil.which("strace") is None:
        return "the program strace is not installed"
    tried = subprocess.run(
        ["strace", "--seccomp-bpf", "-f", "true"], capture_output=True, text=True
    )
    return None if tried.returncode == 0 else (tried.stderr.splitlines() or ["it failed"])[-1]


def traced(command: list[str], file: Path) -> list[str]:
    """The command to run instead. One file for all threads: their numbers come round again.

    Rings are refused to it, as by a kernel without them: libuv makes one in every server.
    """
    wanted = ",".join((*SENDING, RING, *STARTING))
    # Structures in full, since they hold addresses; environments, which may hold keys, in short.
    how = ["-e", f"trace={wanted}", "-e", "abbrev=execve", "-e", "signal=none", "-s", "200"]
    how += ["-e", f"inject={RING}:error=ENOSYS"]
    return ["strace", "--seccomp-bpf", "-f", "-q", *how, "-o", str(file), *command]


def read(file: Path) -> Seen:
    """Every call of a trace, by the program that ran."""
    with file.open(errors="replace") as lines:
        return read_lines(lines)


def read_lines(lines: Iterable[str]) -> Seen:
    """The same of its lines."""
    living: dict[int, _Thread] = {}
    every: list[_Thread] = []
    found: list[tuple[_Moment, list[Call]]] = []

    def thread(number: int) -> _Thread:
        if number not in living:
            living[number] = _Thread()
            every.append(living[number])
        return living[number]

    for number, line in _whole(lines):
        if _ENDED.match(line):
            living.pop(number, None)
            continue
        here = thread(number)
        name = line.partition("(")[0]
        if name == "execve":
            here.starts(line)
        elif name in STARTING:
            if (child := _child(line)) is not None:
                started = thread(child)
                started.born, started.is_thread = here.now(), "CLONE_THREAD" in line
        else:
            found.append((here.now(), calls_of(line)))
    # What a thread was named after may have been written behind its first calls.
    calls = [
        call._replace(program=moment.program()) for moment, several in found for call in several
    ]
    return Seen(calls, _processes(every), len(every))


@dataclass
class _Thread:
    """A thread or process, from its start to its end."""

    programs: list[str] = field(default_factory=list)
    """What it became, one after the other; SPAWNED is a helper of what it was before."""
    born: "_Moment | None" = None
    is_thread: bool = False

    def now(self) -> "_Moment":
        return _Moment(self, len(self.programs))

    def starts(self, line: str) -> None:
        if re.search(r"\) += 0$", line):
            self.programs.append(_name(line))


class _Moment(NamedTuple):
    """A thread between two of its programs."""

    thread: _Thread
    programs: int
    """So many it had become."""

    def program(self) -> str:
        """What ran there; of a fork what it is a copy of."""
        if not self.programs:
            return self.thread.born.program() if self.thread.born else "?"
        name = self.thread.programs[self.programs - 1]
        if name != SPAWNED:
            return name
        before = _Moment(self.thread, self.programs - 1).program()
        return f"{before.removesuffix(SPAWNED)}{SPAWNED}"


def _processes(every: Iterable[_Thread]) -> dict[str, int]:
    """How many of each; a process that became another program counts as that."""
    names = Counter(one.now().program() for one in every if not one.is_thread)
    return dict(sorted(names.items()))


def _whole(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Thread and call; a call that another thread's line came between is put together again."""
    begun: dict[int, str] = {}
    for raw in lines:
        matched = _LINE.match(raw.rstrip("\n"))
        if not matched:
            continue
        number, line = int(matched[1]), matched[2]
        if line.endswith(_UNFINISHED):
            begun[number] = line.removesuffix(_UNFINISHED)
        elif resumed := _RESUMED.match(line):
            yield number, begun.pop(number, "") + resumed[1]
        else:
            if _ENDED.match(line) and number in begun:
                yield number, begun.pop(number)  # killed in the middle of it
            yield number, line
    yield from begun.items()


def _child(line: str) -> int | None:
    """The number of a thread or process that a line tells the start of."""
    matched = re.search(r"\) += (\d+)$", line)
    return int(matched[1]) if matched else None


def _name(line: str) -> str:
    """A module, a script or a program, from the words of an execve."""
    listed = re.search(r", (\[.*\]), 0x", line)
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', listed[1]) if listed else []
    program = Path(words[0]).name if words else "?"
    if not program.startswith("python"):
        return program
    if any("multiprocessing.spawn" in word for word in words):
        return SPAWNED
    rest = words[1:]
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        rest = rest[1:]
    if rest[:2] == ["-m", "localism"]:
        return " ".join(rest[1:3])
    if rest and rest[0] == "-c":
        imported = re.match(r"from ([\w.]+) import", rest[1])
        return imported[1] if imported else "python -c"
    return Path(rest[rest[0] == "-m"]).name if rest else program


# ---- one line ------------------------------------------------------------------------------


def calls_of(line: str) -> list[Call]:
    """Where a line's call goes: sendmmsg has several destinations, other calls one."""
    name = line.partition("(")[0]
    if name not in (*SENDING, RING):
        return []
    paths: list[str] = []
    bare = _TEXT.sub(lambda text: _kept(text, paths), line)
    destinations = _destinations(name, bare)
    if destinations:
        return [_call(name, line, one, iter(paths)) for one in destinations]
    if NOT_TAKEN.search(bare) or (name == RING and " = -1 " in bare):
        return []
    return [Call("", name, UNREADABLE, "", None, line)]


def _kept(text: re.Match[str], paths: list[str]) -> str:
    """What stands for a text: an address itself, for data and paths nothing that looks like one."""
    before = text[1] or ""
    if before.startswith("inet"):
        return text[0]
    if before:
        paths.append(("@" if before.endswith("@") else "") + text[2])
    return f'{before}""'


def _destinations(name: str, bare: str) -> list[str]:
    """Each as strace writes an address, or NULL; none where one is missing or can't be read."""
    if name == RING:
        return []
    found = [str(one) for one in _PLACES[name].findall(bare)]
    is_whole = len(found) == (bare.count("msg_hdr=") if name == "sendmmsg" else 1)
    return found if is_whole and "}, ...]" not in bare else []


def _call(name: str, line: str, destination: str, paths: Iterator[str]) -> Call:
    if destination == "NULL":
        return Call("", name, "", "", None, line)
    family = destination.removeprefix("{sa_family=").partition(",")[0].rstrip("}").split()[0]
    if family in ("AF_INET", "AF_INET6"):
        host, port = _HOST.search(destination), _PORT.search(destination)
        if not host or not port:
            return Call("", name, UNREADABLE, "", None, line)
        return Call("", name, family, host[1], int(port[1]), line)
    path = next(paths, "") if "sun_path" in destination else ""
    return Call("", name, family, path, None, line)
