"""Files -> a folder with a manifest, and that folder -> parts for media.

Each file is written beside its place, hashed on the way, and renamed; a journal keeps what is done,
so that a pack that was cut off goes on where it was. The manifest comes last: a folder without one
is no pack.
"""

import hashlib
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import __version__
from localism.errors import MachineError, StageError, UsageError
from localism.packing.carry import BLOCK, FORMAT, JOURNAL, MANIFEST
from localism.packing.contents import File
from localism.tables import gigabytes

SPARE_BYTES = 64 << 20
OnFile = Callable[[str, int], None]


@dataclass(frozen=True)
class Entry:
    """A file of the pack, as the manifest lists it."""

    path: str
    """Relative to the pack."""
    bytes: int
    """Its size."""
    sha256: str
    """Of its content."""


def copy_all(files: Sequence[File], folder: Path, on_file: OnFile) -> list[Entry]:
    """Copy what is not there yet; every file's entry, in order.

    Raises MachineError when the disk is too small, StageError when a source changes under the copy.
    """
    done = _journal(folder)
    wanted = [file for file in files if not _is_done(folder, file, done)]
    _check_room(folder, wanted)
    with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
        for file in wanted:
            noted = _copy(file, folder)
            done[file.target] = noted
            journal.write(json.dumps(noted) + "\n")
            journal.flush()
            on_file(file.target, noted["bytes"])
    return [_entry(done[file.target]) for file in files]


def _entry(noted: Mapping[str, Any]) -> Entry:
    return Entry(noted["path"], noted["bytes"], noted["sha256"])


def _journal(folder: Path) -> dict[str, dict[str, Any]]:
    """What an earlier call finished; a last line that was cut off counts as not done."""
    done = {}
    path = folder / JOURNAL
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            noted = json.loads(line)
        except ValueError:
            continue
        done[noted["path"]] = noted
    return done


def _is_done(folder: Path, file: File, done: Mapping[str, Mapping[str, Any]]) -> bool:
    noted, there = done.get(file.target), folder / file.target
    if not noted or not there.is_file() or there.stat().st_size != noted["bytes"]:
        return False
    return _stamp(file.source) == noted["source"]


def _stamp(path: Path) -> list[int]:
    """Size and time of change: other ones mean another content."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _copy(file: File, folder: Path) -> dict[str, Any]:
    target = folder / file.target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(target.name + ".part")
    before, digest, size = _stamp(file.source), hashlib.sha256(), 0
    with file.source.open("rb") as source, temporary.open("wb") as copy:
        while block := source.read(BLOCK):
            digest.update(block)
            size += len(block)
            copy.write(block)
        copy.flush()
        os.fsync(copy.fileno())
    if _stamp(file.source) != before or size != before[0]:
        raise StageError(
            "a file changed while it was copied",
            where=str(file.source),
            fix="let whatever writes it end, then run the same command again",
        )
    shutil.copymode(file.source, temporary)
    os.replace(temporary, target)
    return {
        "path": file.target, "bytes": size, "sha256": digest.hexdigest(), "source": before,
    }  # fmt: skip


def _check_room(folder: Path, wanted: Iterable[File]) -> None:
    needed = sum(file.source.stat().st_size for file in wanted) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise MachineError(
            f"the pack needs {gigabytes(needed)} more, and {gigabytes(free)} are free",
            where=str(folder),
            fix="name a folder on a larger disk with --to; what is copied already is kept",
        )


def begin(folder: Path) -> None:
    """Make the folder, or go on in one that was begun; UsageError for any other that is there."""
    if (folder / MANIFEST).exists():
        raise UsageError(
            "this pack is finished already",
            where=str(folder),
            fix=f"localism verify {folder}; or name another folder with --to",
        )
    if folder.exists() and any(folder.iterdir()) and not (folder / JOURNAL).exists():
        raise UsageError(
            "the folder is not empty, and no pack was begun in it",
            where=str(folder),
            fix="name another folder with --to",
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOURNAL).touch()


def finish(folder: Path, entries: Sequence[Entry], about: Mapping[str, Any]) -> int:
    """Drop what belongs to no entry, write the manifest, end the journal; bytes of the pack."""
    known = {entry.path for entry in entries}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and str(path.relative_to(folder)) not in known | {JOURNAL}:
            path.unlink()
    total = sum(entry.bytes for entry in entries)
    manifest = {
        "format": FORMAT,
        "made_by": f"localism {__version__}",
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "bytes": total,
        **about,
        "files": [vars(entry) for entry in sorted(entries, key=lambda entry: entry.path)],
    }
    temporary = folder / f"{MANIFEST}.part"
    temporary.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(temporary, folder / MANIFEST)
    (folder / JOURNAL).unlink()
    return total


# ---- parts ---------------------------------------------------------------------------------


def split(folder: Path, size: int, on_part: OnFile) -> Path:
    """Write a pack as NAME.tar.001, .002, ... of at most `size` bytes, and NAME.parts.json.

    They lie beside the folder, with carry.py, which puts them together again. Returns the list's
    path, which is written last.
    """
    listed = folder.with_name(f"{folder.name}.parts.json")
    listed.unlink(missing_ok=True)
    for old in folder.parent.glob(f"{folder.name}.tar.*"):
        old.unlink()
    free = shutil.disk_usage(folder.parent).free
    needed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if needed + SPARE_BYTES > free:
        raise MachineError(
            f"the parts need {gigabytes(needed)}, and {gigabytes(free)} are free",
            where=str(folder.parent),
            fix="carry the folder itself, or pack onto a larger disk",
        )
    parts = Parts(folder, size, on_part)
    with parts, tarfile.open(fileobj=parts, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path in _in_order(folder):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=_plain)
    shutil.copyfile(folder / "carry.py", folder.parent / "carry.py")
    content = {"name": folder.name, "parts": parts.written}
    temporary = listed.with_name(listed.name + ".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, listed)
    return listed


def _in_order(folder: Path) -> Iterator[Path]:
    yield folder / MANIFEST
    yield from (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's name and no time: the same pack gives the same parts."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


class Parts:
    """A file to write to that begins another part whenever one is full."""

    def __init__(self, folder: Path, size: int, on_part: OnFile) -> None:
        self._folder, self._size, self._on_part = folder, size, on_part
        self._stream: Any = None
        self._hash: Any = None
        self._count = 0
        self.written: list[dict[str, Any]] = []
        """path, bytes and sha256 of each finished part."""

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream:
            self._end()

    def write(self, data: bytes) -> int:
        """All of it, over as many parts as it takes."""
        left = memoryview(data)
        while left:
            if self._stream is None:
                number = len(self.written) + 1
                path = self._folder.with_name(f"{self._folder.name}.tar.{number:03d}")
                self._stream, self._hash, self._count = path.open("wb"), hashlib.sha256(), 0
            block = left[: self._size - self._count]
            self._stream.write(block)
            self._hash.update(block)
            self._count += len(block)
            left = left[len(block) :]
            if self._count >= self._size:
                self._end()
        return len(data)

    def _end(self) -> None:
        path = Path(self._stream.name)
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._stream = None
        part = {"path": path.name, "bytes": self._count, "sha256": self._hash.hexdigest()}
        self.written.append(part)
        self._on_part(path.name, self._count)
