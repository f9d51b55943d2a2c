"""models.toml and command-line overrides -> a validated Config, or the mistakes with their fixes.

What needs no model is checked at once, before anything heavy is imported (config_checks.py). All
mistakes are looked for that do not follow from others: a value that cannot be is left away, and
what does not build upon it is looked at as if it were not there.
"""

import copy
import os
import tomllib
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from localism.config import Config
from localism.config_checks import Origin, contradictions, file_mistakes, is_wrong
from localism.errors import ConfigError, UsageError, raise_together
from localism.paths import EMBEDDED
from localism.toml_mistakes import Mistake, Place, mistakes

MANUAL = "docs/models-toml.md lists every key with its meaning; `localism init` writes a whole file"


class Look(NamedTuple):
    """A configuration as far as it holds, and what is wrong with it."""

    config: Config | None
    """Without the values that cannot be; None: what is left is no configuration."""
    origin: Origin
    """Where its values were written."""
    mistakes: tuple[ConfigError, ...] = ()
    """With their place and fix."""
    wrong: frozenset[str] = frozenset()
    """Dotted keys that a mistake is about; what builds upon them need not be looked at."""

    def is_wrong(self, *keys: str) -> bool:
        """Whether one of these keys, a table that it is in, or a part of it is wrong."""
        return is_wrong(self.wrong, *keys)

    def has_model(self, role: str) -> bool:
        """Whether what answers for a role, or is trained, is there."""
        if not self.config or self.is_wrong(f"{role}.path", f"{role}.endpoints"):
            return False
        if role == "embedder":
            return True
        section = self.config.served(role)
        return bool(section.path or section.endpoints)  # neither: the key that says so is wrong

    def whole(self) -> Config:
        """The configuration; raises its mistakes, the first with the others beside it."""
        raise_together(self.mistakes)
        assert self.config, "no mistake, and no configuration"
        return self.config


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read models.toml, apply KEY=VALUE overrides, resolve paths, check everything that is cheap.

    Raises ConfigError (file, table and key in `where`) or UsageError (a malformed override).
    """
    return look(path, overrides).whole()


def look(path: Path, overrides: Sequence[str] = ()) -> Look:
    """As load, with the mistakes beside what holds; raises for a file that is no TOML, and for
    overrides that are none."""
    table = apply_overrides(read_table(path), overrides)
    return look_at(table, Origin(str(path), tuple(overrides)), path.resolve().parent)


def look_at(table: dict[str, Any], origin: Origin, base: Path | None = None) -> Look:
    """Plain tables, values and files; paths are relative to `base`, where it is given."""
    found = _values(table, origin)
    if not found.config:
        return found
    config = _resolve(found.config, base) if base else found.config
    of_files = file_mistakes(config, origin, found.wrong)
    mistakes = (*found.mistakes, *(one for part in of_files.values() for one in part))
    return Look(config, origin, mistakes, found.wrong | of_files.keys())


def read_table(path: Path) -> dict[str, Any]:
    """models.toml as plain tables; ConfigError when it is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as unread:
        raise ConfigError(
            "no models.toml here",
            where=f"{path} ({unread.strerror})",
            fix="write one with `localism init --for h100` (or laptop), or pass --models FILE",
        ) from None
    except (ValueError, RecursionError) as broken:  # of tomllib, or of a file in another encoding
        raise ConfigError(
            "models.toml is not valid TOML",
            where=f"{path}: {broken}",
            fix="save it as UTF-8"
            if isinstance(broken, UnicodeDecodeError)
            else "mend that line; `localism init --for laptop` writes one to compare with",
        ) from None


def validate(table: dict[str, Any], source: str, overrides: Sequence[str] = ()) -> Config:
    """A Config from plain tables; mistakes become a ConfigError, the others beside the first.

    `overrides` are those that the table holds already: a mistake in one is said to be there.
    """
    return _values(table, Origin(source, tuple(overrides))).whole()


def _values(table: dict[str, Any], origin: Origin) -> Look:
    """The values alone, by themselves and together; no file is looked at."""
    single: list[Mistake] = []
    config: Config | None
    try:
        config = Config.model_validate(table)
    except ValidationError as wrong:
        single = mistakes(wrong, Config, MANUAL)
        config = _without([one.place for one in single], table)
    keys = frozenset(_key(one.place) for one in single)
    found = [
        ConfigError(one.problem, where=origin.where(_key(one.place)) + one.value, fix=one.fix)
        for one in single
    ]
    between = [
        one for one in (contradictions(config) if config else ()) if not is_wrong(keys, *one.keys)
    ]
    found += [
        ConfigError(one.problem, where=origin.where(*one.keys), fix=one.fix) for one in between
    ]
    return Look(config, origin, tuple(found), keys.union(*(one.keys for one in between)))


def _without(places: Iterable[Place], table: dict[str, Any]) -> Config | None:
    """The configuration with defaults in place of these values; None where that is none either."""
    left = copy.deepcopy(table)
    for place in places:
        keys = list(takewhile(lambda part: isinstance(part, str), place))
        inner: Any = left
        for part in keys[:-1]:
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and keys:
            inner.pop(keys[-1], None)
    for role in ("teacher", "judge", "student"):
        left.setdefault(role, {})
    try:
        return Config.model_validate(left)
    except ValidationError:
        return None


def apply_overrides(table: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The table with every KEY=VALUE set; UsageError for one that is malformed."""
    for override in overrides:
        _apply(table, override)
    return table


def _apply(table: dict[str, Any], override: str) -> None:
    """Set one dotted key: train.epochs=3. The value is TOML, or text if it is not."""
    key, sign, text = override.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise UsageError(
            "override is not of the form KEY=VALUE",
            where=f"--set {override}",
            fix="for instance --set train.epochs=3",
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"{part} is a value, not a table",
                where=f"--set {override}",
                fix="docs/models-toml.md lists every key",
            )
    table[parts[-1]] = value


def _key(place: Place) -> str:
    """('extract', 'seeds', 0, 'path') -> 'extract.seeds[0].path'."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in place]
    return "".join(parts).removeprefix(".")


def _resolve(config: Config, base: Path) -> Config:
    """Paths become absolute: relative ones are relative to models.toml."""

    def absolute(path: str) -> str:
        is_name = not path or path.startswith(EMBEDDED)
        return path if is_name else str((base / os.path.expanduser(path)).resolve())

    changes: dict[str, Any] = {}
    for role in ("teacher", "judge", "student", "embedder"):
        section = getattr(config, role)
        update = {"path": absolute(section.path)}
        if role != "embedder":
            update["api_key_file"] = absolute(section.api_key_file)
        changes[role] = section.model_copy(update=update)
    if (base / config.prompts.pack / "pack.toml").exists():
        changes["prompts"] = config.prompts.model_copy(
            update={"pack": absolute(config.prompts.pack)}
        )

    def absolute_file(name: str) -> str:
        return absolute(name) if (base / name).is_file() else name

    evaluate = config.evaluate
    changes["evaluate"] = evaluate.model_copy(
        update={
            "suites": tuple(absolute_file(name) for name in evaluate.suites),
            "judge_prompts": absolute(evaluate.judge_prompts)
            if any((base / evaluate.judge_prompts).glob("*.txt"))
            else evaluate.judge_prompts,
        }
    )
    extract = config.extract
    seeds = tuple(
        source.model_copy(update={"path": absolute(source.path)}) for source in extract.seeds
    )
    changes["extract"] = extract.model_copy(
        update={"seeds": seeds, "taxonomy": absolute(extract.taxonomy)}
    )
    benchmarks = tuple(absolute(path) for path in config.curate.benchmarks)
    changes["curate"] = config.curate.model_copy(update={"benchmarks": benchmarks})
    return config.model_copy(update=changes)
