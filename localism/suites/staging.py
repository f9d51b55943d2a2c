"""Benchmark files brought in once, checked, and kept as items with a fingerprint.

A staged benchmark is a folder [evaluate].staged/NAME with items.jsonl, one item a line in the form
of records.Item, and manifest.json: protocol, source files with their SHA-256, and the fingerprint
of the items. Without one, a rehearsal takes the sample that ships with localism; a run with real
models does so only when asked, for a sample is not the benchmark.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from localism.errors import ConfigError, UsageError
from localism.records import stable_id
from localism.suites import alpacaeval
from localism.suites.known import LM_EVAL, PROTOCOLS, is_file, protocol_of
from localism.suites.records import Item, Suite

ITEMS, MANIFEST = "items.jsonl", "manifest.json"
SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Staged:
    """A benchmark that is ready to be asked."""

    name: str
    """As in --suite, or the stem of a file."""
    protocol: Suite
    """Whose rules it follows."""
    items: tuple[Item, ...]
    """In order."""
    source: str
    """Where they came from."""
    is_sample: bool
    """The few items that ship with localism, not the benchmark."""
    note: str | None
    """What belongs beside its scores."""

    @property
    def fingerprint(self) -> str:
        """Of the items, in order."""
        return stable_id([item.item_id for item in self.items])


def stage(name: str, source: Path, staged: Path) -> Staged:
    """Read a benchmark's public files and keep its items under staged/NAME.

    What was staged under that name before is replaced in one step. Raises ConfigError, naming file
    and line, for files that are not the benchmark's.
    """
    if name not in PROTOCOLS:
        protocol_of(name)  # tells an unknown name from a known one that is staged otherwise
        raise UsageError(
            "a file of prompts needs no staging", where=f"--suite {name}",
            fix=f"localism evaluate --suite {name}",
        )  # fmt: skip
    if not source.exists():
        raise ConfigError("there is nothing here", where=f"--from {source}", fix="check the path")
    items = PROTOCOLS[name].read(source)
    if not items:
        raise ConfigError("the files hold no item", where=f"--from {source}", fix="copy them again")
    found = Staged(name, PROTOCOLS[name], tuple(items), str(source.resolve()), False, None)
    manifest = {
        "suite": name,
        "source": found.source,
        "files": {str(file): _sha256(file) for file in _files(source)},
        "items": len(items),
        "fingerprint": found.fingerprint,
        "staged_on": date.today().isoformat(),
    }
    _write(staged / name, found, manifest)
    return found


def load(name: str, staged: Path, *, may_sample: bool) -> Staged:
    """A benchmark by name, or a file of the user's own.

    may_sample: take the sample that ships where nothing is staged. Raises UsageError where it may
    not, ConfigError for a staged folder that was altered or is incomplete.
    """
    protocol = protocol_of(name)
    if is_file(name):
        path = Path(name)
        if path.stem in (*PROTOCOLS, LM_EVAL):
            raise UsageError(
                f"a file of your own cannot be called {path.stem}, like a benchmark",
                where=name,
                fix="rename it: its name is that of its rows and scores",
            )
        items = tuple(alpacaeval.read(path, path.stem))
        if not items:
            raise ConfigError("the file holds no prompt", where=name, fix="a line for each prompt")
        return Staged(path.stem, protocol, items, str(path.resolve()), False, None)
    if (staged / name / MANIFEST).exists():
        return _load(name, protocol, staged / name)
    if not may_sample:
        raise UsageError(
            f"{name} is not staged",
            where=str(staged / name),
            fix=f"localism evaluate stage --suite {name} --from DIR brings its files in; --sample "
            "takes the few items of our own, which are not the benchmark",
        )
    items = tuple(protocol.read(SAMPLES / name))
    note = f"a sample of {len(items)} items that ships with localism, not the benchmark"
    return Staged(name, protocol, items, "localism", True, note)


def _load(name: str, protocol: Suite, folder: Path) -> Staged:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        lines = (folder / ITEMS).read_text(encoding="utf-8").split("\n")
        items = tuple(_item(json.loads(line)) for line in lines if line)
        found = Staged(name, protocol, items, manifest["source"], False, None)
        is_same = found.fingerprint == manifest["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as broken:
        raise _altered(name, folder, f"it cannot be read: {broken}") from None
    if not is_same:
        raise _altered(name, folder, "its items are not those that its manifest names")
    return found


def _altered(name: str, folder: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"the staged {name} is damaged: {problem}",
        where=str(folder),
        fix=f"stage it again: localism evaluate stage --suite {name} --from DIR",
    )


def _item(stored: Mapping[str, Any]) -> Item:
    texts = {"turns": tuple(stored["turns"]), "tags": tuple(stored["tags"])}
    return Item(**{**stored, **texts})


def _write(folder: Path, found: Staged, manifest: Mapping[str, Any]) -> None:
    """The manifest last: a folder without one is not staged, one with another's is damaged."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in found.items)
    (folder / ITEMS).write_text("".join(lines), encoding="utf-8")
    temporary = folder / f"{MANIFEST}.new"
    temporary.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(temporary, folder / MANIFEST)


def _files(source: Path) -> list[Path]:
    """The benchmark's data files; what else lies in the folder is not read."""
    if source.is_file():
        return [source]
    return sorted(
        path for path in source.rglob("*")
        if path.suffix in (".json", ".jsonl", ".csv", ".parquet", ".txt") and path.is_file()
    )  # fmt: skip


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
