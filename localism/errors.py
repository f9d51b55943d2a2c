"""Errors that a user can fix: what is wrong, where, and what to do.

Only these are caught by the command line and shown as three lines without a traceback.
Anything else that is raised is a bug of ours and keeps its traceback.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path


class LocalismError(Exception):
    """A problem with a fix; subclasses set the exit code of the command."""

    exit_code = 5

    def __init__(self, problem: str, *, where: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.fix = fix
        self.beside: Sequence[LocalismError] = ()
        """Further mistakes that were found with it; the doctor shows them all."""

    def __str__(self) -> str:
        return f"error: {self.problem}\nwhere: {self.where}\nfix:   {self.fix}"


class UsageError(LocalismError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(LocalismError):
    """models.toml, a prompt pack, a model folder or a data file is wrong."""

    exit_code = 3


class MachineError(LocalismError):
    """The machine is too small or lacks something the run needs."""

    exit_code = 4


class StageError(LocalismError):
    """A stage could not finish; what it finished before is kept."""

    exit_code = 5


def raise_together(found: Sequence[LocalismError]) -> None:
    """Raise the first of several mistakes, which brings the others along; nothing if none."""
    if found:
        found[0].beside = found[1:]
        raise found[0] from None


class OutOfTime(Exception):
    """The hours that were allowed are over; what is finished is kept, and nothing is wrong."""

    exit_code = 6


# Folders of the kernel's own, which answer that a new file does not exist.
UNREAL = ("/proc/", "/sys/")
NO_ROOM_BYTES = 1 << 20
# torch says only that it could not write.
OF_A_FULL_DISK = (os.strerror(errno.ENOSPC), "PytorchStreamWriter failed writing file")
ANOTHER = "name another path, or move away what is there"
# Other errors of the system are bugs of ours.
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def of_the_system(refused: OSError) -> LocalismError | None:
    """What a user can mend of an error of the operating system; None for anything else."""
    # A write that failed does not say where.
    where, another = str(refused.filename or "a file that was being written"), ANOTHER
    if isinstance(refused, IsADirectoryError):
        return UsageError("a file is needed, and this is a folder", where=where, fix=another)
    if isinstance(refused, FileExistsError | NotADirectoryError):
        problem = "a folder is needed, and this, or a part of its path, is a file"
        return UsageError(problem, where=where, fix=another)
    if refused.errno == errno.ENOENT and where.startswith(UNREAL):
        return UsageError("nothing can be made in this folder", where=where, fix="name another")
    if refused.errno == errno.ENAMETOOLONG:
        return UsageError("this name is too long", where=where, fix="name another")
    if refused.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(refused.errno, where)
    if refused.errno in REFUSALS:
        return MachineError(
            f"a file or folder cannot be used: {os.strerror(refused.errno).lower()}",
            where=where,
            fix="check who may read and write it, and the space on its disk",
        )
    return None


def of_the_disk(text: str, where: str) -> LocalismError | None:
    """What a library's or a child's last words say of a disk; None when they say nothing of it."""
    if any(words in text for words in OF_A_FULL_DISK):
        return _full(errno.ENOSPC, where)
    said = next((n for n in (errno.EDQUOT, *REFUSALS) if os.strerror(n) in text), None)
    return of_the_system(OSError(said, os.strerror(said), where)) if said else None


def of_a_full_disk(text: str, folder: Path) -> LocalismError | None:
    """The same of a child that writes into this folder; its log may be on the full disk as well."""
    has_none = shutil.disk_usage(folder).free < NO_ROOM_BYTES
    return _full(errno.ENOSPC, str(folder)) if has_none else of_the_disk(text, str(folder))


def _full(number: int, where: str) -> MachineError:
    return MachineError(
        f"the disk is full: {os.strerror(number).lower()}",
        where=where,
        fix="free some space there; the same command then goes on, and at most the last second of "
        "finished calls is paid again",
    )
