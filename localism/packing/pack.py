"""Everything that a run needs, into one folder that is carried into an air gap.

DIR/MANIFEST.json   every file with its size and SHA-256; what each part is, where it came from
DIR/README.txt      what to do with it inside
DIR/carry.py        checks the pack before anything is installed
DIR/models.toml     with the paths that hold in here
DIR/localism/       the source of localism; DIR/wheels/ what it is installed from
DIR/models/, data/  weights, embedder, seeds, benchmarks, prompts
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import licences
from localism.config import Config
from localism.models_toml import load
from localism.packing import contents, packer, wheels
from localism.packing.carry import sha256_of
from localism.packing.contents import File, Piece

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Wheels:
    """Which wheels come along."""

    kind: str
    """gpu or cpu: what the machine inside has."""
    python: str | None = None
    """Its Python, for instance 3.12; that of this machine when None."""
    torch_index: str | None = None
    """An index with the CPU build of torch."""
    with_tests: bool = False
    """The tests' own tools too."""


@dataclass(frozen=True)
class Packed:
    """What came of it."""

    folder: Path
    """The pack."""
    bytes: int
    """Of all its files."""
    files: int
    """How many they are."""
    left: tuple[str, ...]
    """Files of model folders that stay behind: pickles and other formats."""
    notes: tuple[str, ...]
    """What the user has to see to inside."""


def pack(models: Path, folder: Path, asked: Wheels | None, on_file: packer.OnFile) -> Packed:
    """Make a pack of what models.toml names, or go on with one that was cut off.

    asked: None leaves the wheels out. Raises what reading models.toml raises, UsageError for a
    folder that is no unfinished pack, MachineError for a full disk, StageError where pip fails or a
    file changes under the copy.
    """
    config, named = load(models), contents.pieces(models)
    text = contents.rewritten(models.read_text(encoding="utf-8"), named, str(models))
    packer.begin(folder)
    carried, left = _files([*contents.checkout(), *named])
    entries = packer.copy_all(carried, folder, on_file)
    if asked:
        fetched = wheels.fetch(
            asked.kind,
            folder / "wheels",
            python=asked.python,
            torch_index=asked.torch_index,
            with_tests=asked.with_tests,
        )
        entries += [_entry(folder, path) for path in fetched]
    notes = tuple(_notes(config))
    for name, content in (
        ("models.toml", text),
        ("README.txt", _readme(asked, notes)),
        ("carry.py", (HERE / "carry.py").read_text()),
    ):
        (folder / name).write_text(content, encoding="utf-8")
        entries.append(_entry(folder, folder / name))
    about = {"for": vars(asked) if asked else None, "contents": _contents(named, entries)}
    total = packer.finish(folder, entries, about)
    return Packed(folder, total, len(entries), tuple(left), notes)


def _files(every: Sequence[Piece]) -> tuple[list[File], list[str]]:
    carried: list[File] = []
    left: list[str] = []
    for piece in every:
        found, behind = contents.files(piece)
        carried += found
        left += behind
    return carried, left


def _entry(folder: Path, path: Path) -> packer.Entry:
    return packer.Entry(str(path.relative_to(folder)), path.stat().st_size, sha256_of(path))


def _contents(named: Sequence[Piece], entries: Sequence[packer.Entry]) -> list[Mapping[str, Any]]:
    """What each part is, where it came from, and its licence as far as it is written there."""
    rows: list[Mapping[str, Any]] = []
    for piece in named:
        inside = [
            entry.bytes
            for entry in entries
            if entry.path == piece.target or entry.path.startswith(f"{piece.target}/")
        ]
        licence = licences.find(piece.source, piece.what)
        rows.append(
            {
                "what": piece.what,
                "path": piece.target,
                "from": str(piece.source),
                "licence": licence.name,
                "licence_read_in": licence.source,
                "files": len(inside),
                "bytes": sum(inside),
            }
        )
    return rows


def _notes(config: Config) -> list[str]:
    notes = []
    for role in ("teacher", "judge"):
        section = getattr(config, role)
        if section.endpoints:
            notes.append(f"[{role}].endpoints name servers that must be there inside")
        if section.api_key_file:
            notes.append(f"[{role}].api_key_file is a secret and was not packed")
    return notes


def _readme(asked: Wheels | None, notes: Sequence[str]) -> str:
    kind = asked.kind if asked else "gpu"
    wheels_from = "../wheels" if asked else "DIR   (a folder of wheels: they were left out)"
    lines = [
        "A localism pack. Inside the air gap:",
        "",
        "    python3 carry.py verify .            every file whole and unaltered",
        "    cd localism",
        f"    make setup LOCK=requirements/{kind}.txt WHEELS={wheels_from}",
        "    cd ..",
        "    localism/.venv/bin/localism run-all --run first --models models.toml",
        "",
        "It needs Python 3.11 or newer, and make. MANIFEST.json says what is in here, where it",
        "came from and under which licence, as far as the folders say.",
        *(["", "See to:", *(f"  - {note}" for note in notes)] if notes else []),
    ]
    return "\n".join(lines) + "\n"
