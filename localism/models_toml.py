"""models.toml and command-line overrides -> a validated Config, or the mistakes with their fixes.

What needs no model is checked at once, before anything heavy is imported (config_checks.py).
"""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from localism.config import Config
from localism.config_checks import Origin, check_files, contradictions
from localism.errors import ConfigError, UsageError, raise_together
from localism.paths import EMBEDDED
from localism.toml_mistakes import Place, mistakes

MANUAL = "docs/models-toml.md lists every key with its meaning; `localism init` writes a whole file"


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read models.toml, apply KEY=VALUE overrides, resolve paths, check everything that is cheap.

    Raises ConfigError (file, table and key in `where`) or UsageError (a malformed override).
    """
    config = validate(apply_overrides(read_table(path), overrides), str(path), overrides)
    config = _resolve(config, path.resolve().parent)
    check_files(config, str(path), overrides)
    return config


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
    origin = Origin(source, tuple(overrides))
    try:
        config = Config.model_validate(table)
    except ValidationError as wrong:
        found = [
            ConfigError(one.problem, where=origin.where(_key(one.place)) + one.value, fix=one.fix)
            for one in mistakes(wrong, Config, MANUAL)
        ]
        raise_together(found)
        raise
    raise_together(
        [
            ConfigError(problem, where=origin.where(*keys), fix=fix)
            for problem, keys, fix in contradictions(config)
        ]
    )
    return config


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
