"""The recipe of a run: frozen in its folder, and what of it may still change.

recipe.json holds the whole validated configuration, the models.toml that it was read from, and the
overrides of the command line.
"""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from localism import reader
from localism.config import Config
from localism.config_checks import Origin
from localism.errors import ConfigError, LocalismError, UsageError
from localism.models_toml import Look, apply_overrides, load, look, look_at, read_table, validate
from localism.offline import host_of
from localism.prompting.packs import packaged
from localism.records import STAGES

RECIPE = "recipe.json"


def default_models() -> Path:
    """models.toml in the working folder, else the embedded default that ships with localism."""
    here = Path("models.toml")
    return here if here.exists() else packaged("models.toml")


class Recipe(NamedTuple):
    """A configuration and where it was read from."""

    models: Path
    overrides: tuple[str, ...]
    config: Config

    def origin(self) -> Origin:
        """Where its values were written."""
        return Origin(str(self.models), self.overrides)


def settle_recipe(folder: Path, models: Path | None, overrides: Sequence[str]) -> Recipe:
    """What a call asks of a run, if it may have that. Nothing is written: `run.opened` does it.

    What the rows of a run were made with is frozen, and the rest may change. The section of a stage
    is frozen when that stage starts, everything else when anything is made; keys of mere speed stay
    free, and `mix.train` may grow until training starts (docs/decisions/0004). The models.toml that
    a run was started with is read again at every call, so that an edit is noticed rather than
    ignored. Raises UsageError, naming the keys that may not change any more.
    """
    asked = asked_recipe(folder, models, overrides)
    check_frozen(folder, asked)
    return asked


def check_frozen(folder: Path, asked: Recipe) -> None:
    """UsageError when a run has a recipe by now, and this one would change what is frozen of it."""
    if not (folder / RECIPE).exists():
        return
    changes = list(differences(frozen_recipe(folder).recipe(), asked.config.recipe()))
    started = _started(folder) if changes else set()
    changed = [change for change in changes if not _may_change(change, started)]
    if changed:
        named = ", ".join(sorted(f"{c.key} ({c.before!r} -> {c.after!r})" for c in changed))
        written = sorted({asked.origin().where(change.key) for change in changed})
        raise UsageError(
            f"this run was started with another recipe; {named} would change",
            where=f"{folder / RECIPE}, against {'; '.join(written)}",
            fix=f"`{_forked(folder, asked)}` starts a run with the new one and reuses every model "
            "call that stays the same; or undo the change",
        )


def _forked(folder: Path, asked: Recipe) -> str:
    """The command for a run that has what this call asks for."""
    own = without_the_call(folder, asked)
    return shlex.join(["localism", "fork", folder.name, "NEW", *words_of_the_call(own, asked)])


def words_of_the_call(own: Recipe | None, asked: Recipe) -> list[str]:
    """--models and --set as a call gives them beside `own`, the recipe of the run without it."""
    words: list[str] = []
    if own and asked.models.resolve() != own.models.resolve():
        words += ["--models", str(asked.models)]
    new = asked.overrides[len(own.overrides) if own else 0 :]
    return [*words, *(word for override in new for word in ("--set", override))]


def _stored(folder: Path) -> dict[str, Any]:
    """models, overrides and config of recipe.json."""
    try:
        stored: dict[str, Any] = json.loads((folder / RECIPE).read_text())
        for key, kind in (("models", str), ("overrides", list), ("config", dict)):
            if not isinstance(stored[key], kind):
                raise TypeError(f"{key} is not what a run writes there")
        return {key: stored[key] for key in ("models", "overrides", "config")}
    except (ValueError, KeyError, TypeError) as damaged:
        raise ConfigError(
            "the recipe of this run cannot be read",
            where=f"{folder / RECIPE}: {damaged}",
            fix='its config is also in the corpus (localism sql "SELECT recipe FROM run"); restore '
            "the file, or start a new run with --run NEW",
        ) from None


def named_hosts(config: Config) -> tuple[str, ...]:
    """Every host that a configuration names: all that its run may speak to beside this machine."""
    urls = [url for role in ("teacher", "judge") for url in config.served(role).endpoints]
    engines = [config.served(role).rendezvous for role in ("teacher", "judge")]
    meetings = [meeting.partition(":")[0] for meeting in (config.train.rendezvous, *engines)]
    return tuple(sorted({*map(host_of, urls), *filter(None, meetings)}))


def frozen_recipe(folder: Path) -> Config:
    return validate(_stored(folder)["config"], str(folder / RECIPE))


def with_stated_licences(folder: Path) -> Config:
    """The frozen recipe with the [licences] that its models.toml states by now.

    Looks at no model: what was made can be exported when the models are gone.
    """
    stored = _stored(folder)
    source = Path(stored["models"])
    if not source.exists():
        return frozen_recipe(folder)
    stated = {"licences": read_table(source).get("licences", {})}
    own = [override for override in stored["overrides"] if override.startswith("licences.")]
    return validate({**stored["config"], **apply_overrides(stated, own)}, str(source), own)


def asked_recipe(folder: Path, models: Path | None, overrides: Sequence[str]) -> Recipe:
    """What a call asks of a run: its own models.toml and overrides, if any, then the call's."""
    source, merged = _asked(folder, models, overrides)
    return Recipe(source, merged, look_at_asked(folder, models, overrides).whole())


def look_at_asked(folder: Path, models: Path | None, overrides: Sequence[str]) -> Look:
    """The same, with its mistakes beside what holds."""
    source, merged = _asked(folder, models, overrides)
    if models or source.exists() or not (folder / RECIPE).exists():
        return look(source, merged)
    table = apply_overrides(_stored(folder)["config"], overrides)
    return look_at(table, Origin(str(folder / RECIPE), tuple(overrides)))


def _asked(
    folder: Path, models: Path | None, overrides: Sequence[str]
) -> tuple[Path, tuple[str, ...]]:
    """Which models.toml, and what of the command lines stands over it."""
    if not (folder / RECIPE).exists():
        return models or default_models(), tuple(overrides)
    stored = _stored(folder)
    return models or Path(stored["models"]), (*stored["overrides"], *overrides)


def write_recipe(folder: Path, models: Path, overrides: Sequence[str], config: Config) -> None:
    """Freeze a recipe."""
    content = {
        "models": str(models.resolve()),
        "overrides": list(overrides),
        "config": config.model_dump(mode="json"),
    }
    temporary = folder / f"{RECIPE}.{os.getpid()}"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(temporary, folder / RECIPE)


def sets_anything(folder: Path, asked: Recipe) -> bool:
    """Whether the command line changes what the run's own models.toml and overrides say."""
    if not (folder / RECIPE).exists():
        return bool(asked.overrides)
    stored = _stored(folder)
    own = (Path(stored["models"]), tuple(stored["overrides"]))
    is_other = (asked.models.resolve(), asked.overrides) != own
    return is_other and asked.config != frozen_recipe(folder)


def without_the_call(folder: Path, asked: Recipe) -> Recipe | None:
    """The recipe as it is without what a call sets.

    Of a new run that is its models.toml alone, and None where that cannot be used alone.
    """
    if (folder / RECIPE).exists():
        stored = _stored(folder)
        return Recipe(Path(stored["models"]), tuple(stored["overrides"]), frozen_recipe(folder))
    try:
        return Recipe(asked.models, (), load(asked.models))
    except LocalismError:
        return None


class Change(NamedTuple):
    """A key of the recipe, dotted, and its two values."""

    key: str
    before: Any
    after: Any


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[Change]:
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield Change(f"{prefix}{key}", before, after)


def _may_change(change: Change, started: set[str]) -> bool:
    if not started:
        return True
    section = change.key.partition(".")[0]
    if section in STAGES and section not in started:
        return True
    return is_extension(change) and "train" not in started


def is_extension(change: Change) -> bool:
    """More training examples: the plan that exists is the beginning of the longer one."""
    return change.key == "mix.train" and change.after > change.before


# Where a stage leaves rows before its end, beside the ledger. What training leaves is on disk.
ROWS = {
    "extract": ("topic", "skill_label", "seed_example"),
    "cluster": ("skill",),
    "mix": ("mix",),
    "generate": ("candidate",),
    "curate": ("verdict",),
    "pick": ("answer",),
}


def _started(folder: Path) -> set[str]:
    """Stages that something was made by; one that stopped at a mistake in its section was not."""
    if not (folder / reader.CORPUS).exists():
        return set()
    rows = reader.read(
        folder,
        "SELECT stage FROM tokens UNION SELECT stage FROM event WHERE kind = 'stage_finished'"
        " UNION SELECT stage FROM event WHERE kind = 'stage_started' AND stage = 'train'",
    ).rows
    found = {row[0] for row in rows}
    for stage, tables in ROWS.items():
        counts = (f"EXISTS (FROM {table})" for table in tables)
        if reader.read(folder, f"SELECT {' OR '.join(counts)}").rows[0][0]:
            found.add(stage)
    return found
