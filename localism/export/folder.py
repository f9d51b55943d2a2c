"""A folder that is there whole or not at all, with the SHA-256 of all that is in it.

It is filled beside its place and renamed. What is replaced is moved aside first and removed last,
so that kill -9 at any moment loses neither: the next export puts back or clears away what is left.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from localism.errors import MachineError, UsageError
from localism.tables import gigabytes

SUMS = "SHA256SUMS"
"""In every export; `sha256sum -c SHA256SUMS` checks a copy."""
MARGIN_BYTES = 64 * 2**20


@contextmanager
def whole_folder(
    target: Path, *, overwrite: bool = False, needed_bytes: int = 0, known: Collection[str] = ()
) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends without an error.

    Raises UsageError for a target that may not be replaced, MachineError where the disk has no room
    for `needed_bytes`. `known` names files that may go although no export has noted them.
    """
    target = Path(os.path.abspath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        _put_back(target)
        _check_target(target, overwrite, known)
        _check_space(target, needed_bytes)
        building = _beside(target, "partial")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            yield building
            _write_sums(building)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _swap(building, target)


def replace(path: Path, text: str) -> None:
    """Write a text file so that a reader never sees half of it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text)
    os.replace(temporary, path)


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}")


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the target's lock; a process that was killed holds none."""
    path = _beside(target, "lock")
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "another process is exporting to this folder",
                where=str(target),
                fix="wait for it, or name another folder with --to",
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _put_back(target: Path) -> None:
    """After a kill between the two renames: the earlier export gets its name again."""
    earlier = _beside(target, "replaced")
    if earlier.exists() and not target.exists():
        earlier.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)


def _check_target(target: Path, overwrite: bool, known: Collection[str]) -> None:
    if target.is_symlink():
        raise UsageError(
            "the folder to write is a link, and links are not followed",
            where=str(target),
            fix="name the folder that it leads to",
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError("there is a file of this name", where=str(target), fix="name a folder")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise UsageError(
            "the folder is not empty",
            where=str(target),
            fix="name another with --to, or replace an earlier export with --overwrite",
        )
    if foreign := _foreign_files(target, known):
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise UsageError(
            f"the folder holds what no export wrote: {foreign[0]}{more}",
            where=str(target),
            fix="move them away, or name another folder with --to",
        )


def _foreign_files(target: Path, known: Collection[str]) -> list[str]:
    """Files and links that its SHA256SUMS doesn't name: they are somebody's."""
    sums = target / SUMS
    noted = {SUMS, *known}
    if sums.is_file() and not sums.is_symlink():
        lines = sums.read_text(encoding="utf-8").splitlines()
        noted |= {line.partition("  ")[2] for line in lines}
    found = []
    for folder, subfolders, files in os.walk(target):
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in [*files, *links]:
            path = Path(folder) / name
            relative = str(path.relative_to(target))
            if path.is_symlink() or relative not in noted:
                found.append(relative)
    return sorted(found)


def _check_space(target: Path, needed_bytes: int) -> None:
    """An earlier export stays until the new one is whole, so its bytes are not counted as free."""
    free = shutil.disk_usage(target.parent).free
    if needed_bytes and needed_bytes + MARGIN_BYTES > free:
        raise MachineError(
            f"the export needs {gigabytes(needed_bytes)} and {gigabytes(free)} are free",
            where=str(target.parent),
            fix="free some space there, or name a folder on another disk with --to",
        )


def _write_sums(folder: Path) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in paths]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _swap(building: Path, target: Path) -> None:
    earlier = _beside(target, "replaced")
    if target.exists() and any(target.iterdir()):
        target.rename(earlier)
    building.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)
