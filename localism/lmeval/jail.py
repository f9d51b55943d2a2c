"""The inside of the sandbox: shuts itself in, runs one program, reports how it ended.

A script of the standard library alone, started by sandbox.py with `python -I` in new namespaces:
    {"program": ..., "token": ..., "seconds": ..., "shut": true} on stdin -> two lines on stdout
The first line says that the program begins, the second how the program ended; each begins with the
token, so that what the program itself prints or leaves out is never taken for a verdict.
"""

import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from types import FrameType
from typing import Any, NoReturn

MEMORY_BYTES = 2**30
FILE_BYTES = 2**20
OPEN_FILES = 64
FOLDER_SIZE = b"size=16m,nr_inodes=1k"
# So that what a program writes of itself stays small.
MOST_ATTEMPTS, STACK_FRAMES, LONGEST = 8, 12, 200
LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
HERE = (None, "", "localhost", "127.0.0.1", "::1")

# <linux/prctl.h>, <linux/seccomp.h>, <linux/mount.h>, <linux/capability.h>
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 0x1, 0x2, 0x4
MOUNT_SETATTR = 442
CAPABILITY_VERSION_3 = 0x20080522

# Linux on x86-64, <asm/unistd_64.h>. Sockets, for one of the file system (a database's, Docker's)
# is reachable without a network; io_uring makes them unseen; unshare and setns lead to new rights.
REFUSED_CALLS = {
    "socket": 41,
    "connect": 42,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "ptrace": 101,
    "unshare": 272,
    "setns": 308,
    "execveat": 322,
    "io_uring_setup": 425,
}
CLONE, CLONE3, CLONE_THREAD = 56, 435, 0x10000
AUDIT_ARCH_X86_64, X32 = 0xC000003E, 0x40000000
EPERM, ENOSYS = 1, 38
AF_INET, AF_INET6 = 2, 10
ALLOW, ERRNO, KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000


class TimeIsUp(BaseException):
    """Not an Exception, which programs catch by the way."""


def main() -> None:
    request = json.load(sys.stdin)
    verdicts = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    if request["shut"]:
        shut_files(os.getcwd())
    limit(request["seconds"])
    try:
        drop_rights()
        refuse_calls()
    except OSError:
        if request["shut"]:
            raise
        # Without a sandbox, by the user's leave: what can be refused all the same is refused.
    token = request["token"]
    os.write(verdicts, f"{token} ready\n".encode())
    tell_of_sockets(verdicts, token)
    verdict = run(request["program"], request["seconds"])
    os.write(verdicts, f"{token} {verdict}".encode(errors="replace")[:400] + b"\n")
    os._exit(0)  # not waiting for threads, nor for what the program left to be done at exit


def run(program: str, seconds: float) -> str:
    """How it ended: passed, timed out, or failed with what it raised."""
    signal.signal(signal.SIGALRM, _time_is_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        exec(program, {})
    except TimeIsUp:
        return "timed out"
    except BaseException as raised:  # SystemExit too: a program that leaves early has not passed
        return f"failed {type(raised).__name__}: {raised}".replace("\n", " ")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "passed"


def _time_is_up(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeIsUp


def tell_of_sockets(verdicts: int, token: str) -> None:
    """Have the first attempts to reach a network written down, and refused before the kernel is."""
    left = iter(range(MOST_ATTEMPTS))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        target = _target(event, arguments)
        if target is None:
            return
        if next(left, None) is not None:
            attempt = {"event": event, "target": target, "stack": _stack()}
            os.write(verdicts, f"{token} refused {json.dumps(attempt)}\n".encode())
        raise PermissionError(EPERM, os.strerror(EPERM))

    sys.addaudithook(hook)


def _target(event: str, arguments: tuple[Any, ...]) -> list[str] | None:
    """What an event of Python's reaches for, when that is a network: where to, if it says so."""
    if event in LOOK_UPS and arguments[0] not in HERE:
        return [str(part)[:LONGEST] for part in arguments[:2]]
    if event == "socket.__new__" and arguments[1] in (AF_INET, AF_INET6):
        return [f"a socket of family {int(arguments[1])}"]
    return None


def _stack() -> list[str]:
    """Outermost first, without this script's own frames."""
    found: list[str] = []
    frame = sys._getframe()
    while frame is not None and len(found) < STACK_FRAMES:
        code = frame.f_code
        if code.co_filename != __file__:
            found.append(f"{code.co_filename}:{frame.f_lineno} {code.co_name}"[:LONGEST])
        frame = frame.f_back  # type: ignore[assignment]
    return found[::-1]


# ---- the walls -----------------------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)


def _done(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def shut_files(folder: str) -> None:
    """Every file system read-only and without devices; an empty one in memory for the folder."""
    attributes = struct.pack(
        "QQQQ", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0
    )
    arguments = (AT_FDCWD, b"/", AT_RECURSIVE, attributes, len(attributes))
    _done(libc.syscall(MOUNT_SETATTR, *arguments), "mount_setattr")
    # What other processes of this user run with is in /proc, keys in their environment included.
    for place, size in ((b"/proc", b"size=4k"), (folder.encode(), FOLDER_SIZE)):
        _done(libc.mount(b"tmpfs", place, b"tmpfs", 0, size), "mount")
    os.chdir(folder)  # into the new one


def limit(seconds: float) -> None:
    """Memory, size and number of files, processor seconds; no core dump.

    Not RLIMIT_NPROC, which counts all processes of the user and means nothing to root: the filter
    refuses every process, and threads are bounded by the memory for their stacks.
    """
    processor_seconds = int(seconds) + 2
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, processor_seconds),
    ):
        resource.setrlimit(what, (most, most))


def drop_rights() -> None:
    """No capability is left, so that the walls cannot be taken down, and none can be had again."""
    _done(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    _done(libc.capset(header, bytes(24)), "capset")


def refuse_calls() -> None:
    """A seccomp filter: no process, no program, no socket; threads are let through."""
    if platform.machine() != "x86_64":
        raise OSError(ENOSYS, f"the list of system calls is for x86_64, not {platform.machine()}")
    program = b"".join(_filter())
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _done(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0), "seccomp")


def _filter() -> list[bytes]:
    """Classic BPF over struct seccomp_data: number at 0, architecture 4, first argument 16."""
    load, equal, at_least, has_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, value)

    steps = [
        step(load, 4),
        step(equal, AUDIT_ARCH_X86_64, 1, 0),
        step(answer, KILL_PROCESS),
        step(load, 0),
        step(at_least, X32, 0, 1),  # the same calls under other numbers
        step(answer, ERRNO | EPERM),
    ]
    for number in REFUSED_CALLS.values():
        steps += [step(equal, number, 0, 1), step(answer, ERRNO | EPERM)]
    # clone3 keeps its flags where a filter can't look; the C library then takes clone.
    steps += [step(equal, CLONE3, 0, 1), step(answer, ERRNO | ENOSYS)]
    steps += [step(equal, CLONE, 0, 3), step(load, 16)]
    steps += [step(has_bit, CLONE_THREAD, 1, 0), step(answer, ERRNO | EPERM), step(answer, ALLOW)]
    return steps


if __name__ == "__main__":
    main()
