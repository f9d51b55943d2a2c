"""What a pack holds, checked; parts of a tar put together again. Also a program of its own.

This file lies in every pack and beside its parts, and needs nothing but Python 3.11: inside an air
gap it runs before localism is installed.

    python3 carry.py verify DIR              every file present, whole and unaltered, none extra
    python3 carry.py unpack PARTS.json DIR   checks the parts, unpacks them, verifies the result

Exit codes are those of localism: 2 usage, 3 a pack that is not whole, 4 the machine (disk, rights).
"""

import hashlib
import io
import json
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

FORMAT = 1
MANIFEST = "MANIFEST.json"
JOURNAL = ".packing.jsonl"
BLOCK = 1 << 20
# The environment that `make setup` makes, runs, and what Python leaves.
_USED = re.compile(
    r"^/localism/\.venv/|^/(localism/)?runs/|/__pycache__/|^/localism/\.[a-z]+_cache/"
)
THREADS = 4
# A list of parts takes some 150 bytes a part; a part itself may be as large as the memory.
LIST_BYTES = 1 << 26
LIST = ".parts.json"
NAME_LIST = f"name the NAME{LIST} beside the parts"
AGAIN = "copy this file again from the pack outside"


class Problem(NamedTuple):
    """A file that is not as the manifest says."""

    kind: str
    """missing, altered, shorter, longer, unreadable, extra, link."""
    path: str
    """Relative to the pack."""


class BadPack(Exception):
    """A folder or list of parts that is no pack, or a damaged one."""


def sha256_of(path: Path) -> str:
    """Of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ---- a folder ------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a pack; BadPack when there is none that can be read."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["format"] > FORMAT:
            raise BadPack(f"{path}: a newer localism made this pack; use the carry.py in it")
        for entry in files:
            _check_inside(entry["path"], path)
            _ = entry["bytes"], entry["sha256"]
    except OSError:
        unfinished = (folder / JOURNAL).exists()
        why = "the pack was not finished; run the same `localism pack` again"
        raise BadPack(f"{path}: {why if unfinished else 'no pack, it has no manifest'}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadPack(f"{path}: damaged; {AGAIN}") from None
    return dict(manifest)


def _check_inside(path: str, listed_in: Path) -> None:
    if path.startswith("/") or ".." in Path(path).parts:
        raise BadPack(f"{listed_in}: it names {path}, which lies outside the pack; {AGAIN}")


def verify(
    folder: Path, *, quick: bool = False, on_file: Callable[[str, int], None] = lambda *_: None
) -> list[Problem]:
    """What is missing, altered or extra; an empty list is a whole pack. Raises BadPack.

    quick: sizes alone, without reading the files. on_file(path, bytes) hears of each that was
    looked at. A link is a problem, whatever it points to: it may not point there elsewhere.
    """
    manifest = read_manifest(folder)
    known = {entry["path"] for entry in manifest["files"]}

    def check(entry: dict[str, Any]) -> Problem | None:
        found = _check(folder / entry["path"], entry, quick=quick)
        on_file(entry["path"], entry["bytes"])
        return Problem(found, entry["path"]) if found else None

    with ThreadPoolExecutor(THREADS) as pool:
        problems = [found for found in pool.map(check, manifest["files"]) if found]
    extra = [path for path in _there(folder) if path not in known and path != MANIFEST]
    return problems + [Problem("extra", path) for path in extra]


def _check(path: Path, entry: dict[str, Any], *, quick: bool) -> str | None:
    if path.is_symlink():
        return "link"
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return "shorter" if size < entry["bytes"] else "longer"
    try:
        return None if quick or sha256_of(path) == entry["sha256"] else "altered"
    except OSError:
        return "unreadable"


def _there(folder: Path) -> Iterator[str]:
    """Every file and link of a folder, but for what comes to lie in it when it is used."""
    for path in sorted(folder.rglob("*")):
        relative = str(path.relative_to(folder))
        if (path.is_file() or path.is_symlink()) and not _USED.search(f"/{relative}"):
            yield relative


# ---- parts ---------------------------------------------------------------------------------


class Parts(io.RawIOBase):
    """The parts of a tar read as one stream; each is checked against its sum as it is read."""

    def __init__(self, folder: Path, parts: list[dict[str, Any]]) -> None:
        self._folder, self._left = folder, list(parts)
        self._stream: Any = None
        self._hash: Any = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As io.RawIOBase; BadPack when a part turns out to be another one."""
        while True:
            if self._stream is None:
                if not self._left:
                    return 0
                self._stream = _open_part(self._folder, self._left[0])
                self._hash = hashlib.sha256()
            count = int(self._stream.readinto(buffer))
            if count:
                self._hash.update(memoryview(buffer)[:count])
                return count
            self._stream.close()
            part, self._stream = self._left.pop(0), None
            if self._hash.hexdigest() != part["sha256"]:
                raise BadPack(f"{self._folder / part['path']}: altered; copy this part again")


def _wrong(folder: Path, part: dict[str, Any]) -> str | None:
    """What is wrong with a part, as far as its size tells."""
    try:
        _open_part(folder, part).close()
    except BadPack as bad:
        return str(bad).removeprefix(f"{folder}/").partition(";")[0]
    return None


def _open_part(folder: Path, part: dict[str, Any]) -> Any:
    path = folder / part["path"]
    if not path.is_file():
        raise BadPack(f"{path}: missing; copy this part too")
    if path.stat().st_size != part["bytes"]:
        raise BadPack(f"{path}: {path.stat().st_size:,} of {part['bytes']:,} bytes; copy it again")
    return path.open("rb")


def unpack(parts_file: Path, target: Path) -> Path:
    """Unpack the parts that a NAME.parts.json lists into target/NAME, and return that folder.

    Raises BadPack for a part that is missing, cut or altered, for a member that would leave the
    folder, and for a target that is there already. What was unpacked until then lies in a folder
    NAME.partial, which the next call empties.
    """
    import shutil

    name, parts = _read_list(parts_file)
    if (target / name).exists():
        raise BadPack(f"{target / name}: is there already; verify it, or unpack elsewhere")
    absent = [problem for part in parts if (problem := _wrong(parts_file.parent, part))]
    if absent:  # before hours of unpacking
        raise BadPack(f"{parts_file}: {', '.join(absent)}; copy these parts again")
    partial = target / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stream = io.BufferedReader(Parts(parts_file.parent, parts), BLOCK)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            tar.extractall(partial, filter="data")
        while stream.read(BLOCK):  # what follows the tar's end has a sum too
            pass
    except tarfile.TarError:
        raise BadPack(f"{parts_file}: the tar in these parts is damaged; copy them again") from None
    partial.rename(target / name)
    return target / name


def _read_list(parts_file: Path) -> tuple[str, list[dict[str, Any]]]:
    """The pack's name and its parts; BadPack where this is no such list."""
    if parts_file.is_dir():
        raise BadPack(_of_a_folder(parts_file))
    if parts_file.name == MANIFEST and parts_file.exists():
        raise BadPack(_of_a_folder(parts_file.absolute().parent))
    try:
        if parts_file.stat().st_size > LIST_BYTES:
            raise BadPack(_of_another(parts_file))
        listed = json.loads(parts_file.read_text(encoding="utf-8"))
        name, parts = str(listed["name"]), list(listed["parts"])
        for entry in [{"path": name, "bytes": 0, "sha256": ""}, *parts]:
            _check_inside(entry["path"], parts_file)
            _ = entry["bytes"], entry["sha256"]
    except OSError as unread:
        way = NAME_LIST if isinstance(unread, FileNotFoundError) else AGAIN
        raise BadPack(f"{parts_file}: {unread.strerror or unread}; {way}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadPack(_of_another(parts_file)) from None
    return name, parts


def _of_another(file: Path) -> str:
    """What to do with a file that was named to be unpacked and is no list of parts."""
    beside = file.with_name(file.name.partition(".tar")[0] + LIST)
    if file.name.endswith(LIST):
        return f"{file}: this list of parts is damaged; {AGAIN}"
    if beside.exists():
        return f"{file}: this is no list of parts; name the list, {beside}"
    return f"{file}: this is no list of parts; {NAME_LIST}"


def _of_a_folder(folder: Path) -> str:
    """What to do with a folder that was named to be unpacked."""
    lists = sorted(folder.glob(f"*{LIST}"))
    if (folder / MANIFEST).exists():
        return f"{folder}: this pack needs no unpacking; verify it, then do as its README.txt says"
    if lists:
        return f"{folder}: this is a folder; name the list of parts in it, {lists[0]}"
    return f"{folder}: no pack, and no list of parts; {NAME_LIST}"


# ---- the program ---------------------------------------------------------------------------


def _told(problems: list[Problem]) -> str:
    return "".join(f"{problem.kind:<11}{problem.path}\n" for problem in problems)


def main(arguments: list[str]) -> int:
    """verify DIR, or unpack PARTS.json DIR; 0 when all is well, else 2, 3 or 4 as said above."""
    try:
        if len(arguments) == 2 and arguments[0] == "verify":
            folder = Path(arguments[1])
        elif len(arguments) == 3 and arguments[0] == "unpack":
            folder = unpack(Path(arguments[1]), Path(arguments[2]))
        else:
            sys.stderr.write(__doc__ or "")
            return 2
        problems = verify(folder)
    except BadPack as bad:
        sys.stderr.write(f"error: {bad}\n")
        return 3
    except OSError as refused:
        where = refused.filename or "a file that was being written"
        sys.stderr.write(f"error: {where}: {refused.strerror or refused}\n")
        return 4
    sys.stdout.write(_told(problems) or f"{folder}: whole and unaltered\n")
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
