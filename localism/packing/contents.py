"""models.toml -> the files that a pack carries, and where in it they lie.

Models, seed and benchmark files, own prompts; what ships with localism comes along with localism
itself. The pack's models.toml is the user's own, comments and all, with the paths that hold inside.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localism.config import Config
from localism.errors import ConfigError
from localism.models_toml import load, read_table, validate
from localism.paths import EMBEDDED

# Other formats of the same weights, and pickles, which are never loaded.
NOT_CARRIED = (
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".gguf", ".ot",
    ".npz", ".mlmodel", ".part", ".lock",
)  # fmt: skip
CHECKOUT = ("localism", "prompts", "requirements", "tests", "benchmarks", "docs")
CHECKOUT_FILES = (
    "pyproject.toml", "models.toml", "Makefile", "README.md", "CHANGELOG.md", "SECURITY.md",
    "LICENSE",
)  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A file or folder that is carried."""

    what: str
    """teacher, student, seeds, prompts, localism, ..."""
    source: Path
    """Where it is now."""
    target: str
    """Where it lies in the pack."""
    values: tuple[str, ...] = ()
    """How models.toml names it."""


@dataclass(frozen=True)
class File:
    """One file of a piece."""

    source: Path
    """Where it is now."""
    target: str
    """Where it lies in the pack."""


def pieces(models: Path) -> list[Piece]:
    """What models.toml names and does not ship with localism, each source once.

    Raises what reading and checking models.toml raises.
    """
    written, resolved = validate(read_table(models), str(models)), load(models)
    found: dict[Path, Piece] = {}
    for (what, value, is_model), (_, path, _) in zip(
        _named(written), _named(resolved), strict=True
    ):
        if not value or value.startswith(EMBEDDED) or not Path(path).exists():
            continue
        source = Path(path).resolve()
        if source not in found:
            taken = {piece.target for piece in found.values()}
            found[source] = Piece(what, source, _target(what, source, is_model, taken), ())
        named = found[source]
        found[source] = replace(named, values=(*named.values, value))
    return list(found.values())


def _target(what: str, source: Path, is_model: bool, taken: set[str]) -> str:
    """models/ROLE or data/WHAT/NAME; with a number where two sources have one name."""
    rooms = (what if n == 1 else f"{what}-{n}" for n in range(1, len(taken) + 3))
    if is_model:
        return f"models/{what}"
    return next(target for room in rooms if (target := f"data/{room}/{source.name}") not in taken)


def _named(config: Config) -> Iterator[tuple[str, str, bool]]:
    """(what, path, whether it is a model) of everything that may be a path; names are none."""
    for role in ("teacher", "judge", "student", "embedder"):
        yield role, getattr(config, role).path, True
    for seeds in config.extract.seeds:
        yield "seeds", seeds.path, False
    yield "taxonomy", config.extract.taxonomy, False
    for path in config.curate.benchmarks:
        yield "benchmarks", path, False
    yield "suites", config.evaluate.staged, False
    for path in config.evaluate.suites:
        yield "suites", path, False
    yield "prompts", config.prompts.pack, False
    yield "prompts", config.evaluate.judge_prompts, False


def checkout() -> list[Piece]:
    """localism itself, as its checkout has it; ConfigError for an installed copy."""
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").exists():
        raise ConfigError(
            "a pack is made from a checkout of localism",
            where=f"{root}, where it is installed, has no pyproject.toml",
            fix="unpack the source and run `make setup` there, then localism pack",
        )
    names = [name for name in (*CHECKOUT, *CHECKOUT_FILES) if (root / name).exists()]
    return [Piece("localism", root / name, f"localism/{name}") for name in names]


def files(piece: Piece) -> tuple[list[File], list[str]]:
    """Its files in order, and what of it is left behind. ConfigError when there is nothing."""
    if piece.source.is_file():
        return [File(piece.source, piece.target)], []
    carried, left = [], []
    for path in sorted(piece.source.rglob("*")):
        relative = path.relative_to(piece.source)
        if not path.is_file() or any(_is_rubbish(part) for part in relative.parts):
            continue
        if piece.target.startswith("models/") and path.suffix.lower() in NOT_CARRIED:
            left.append(f"{piece.what}/{relative}")
        else:
            carried.append(File(path, f"{piece.target}/{relative}"))
    if not carried:
        raise ConfigError(
            f"there is nothing to pack for {piece.what}",
            where=str(piece.source),
            fix="check the path in models.toml",
        )
    return carried, left


def _is_rubbish(part: str) -> bool:
    return part in ("__pycache__", ".git", ".cache") or part.endswith((".pyc", ".lock"))


def rewritten(text: str, carried: list[Piece], where: str) -> str:
    """The text of models.toml with the pack's own paths; everything else as it stands.

    Raises ConfigError when the result does not say what was meant, as for a path that is spelled
    with escapes.
    """
    before = tomllib.loads(text)
    new = {value: piece.target for piece in carried for value in piece.values}
    for value, target in new.items():
        pattern = f"([\"'])({re.escape(value)})\\1"
        text = re.sub(pattern, lambda found, to=target: f'"{to}"', text)  # type: ignore[misc]
    if tomllib.loads(text) != _replaced(before, new):
        raise ConfigError(
            "the paths could not be rewritten",
            where=where,
            fix="write paths as plain strings, without escapes, and pack again",
        )
    return text


def _replaced(value: Any, new: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, new) for inner in value]
    return new.get(value, value) if isinstance(value, str) else value
