"""A run: its folder, its frozen recipe, its lock, and the nine stages in order."""

import fcntl
import importlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from localism import __version__, assets, offline, reader
from localism.config import Config
from localism.context import Context
from localism.errors import ConfigError, StageError, UsageError
from localism.models_toml import apply_overrides, check_files, load, validate
from localism.progress import Progress
from localism.prompting.packs import packaged
from localism.records import LOCK, STAGES, stable_id
from localism.store import Store, now

RUNS = Path("runs")
RECIPE = "recipe.json"
# Stages whose books must have nothing pending once they are done.
BOOKS = {
    "cluster": ("cluster",),
    "generate": ("generate",),
    "curate": ("curate",),
    "pick": ("pick/answers", "pick/judgments"),
    "evaluate": ("evaluate/answers", "evaluate/judgments"),
}


@dataclass(frozen=True)
class Outcome:
    """What a call of run_stages did."""

    worked: tuple[str, ...]
    """Stages that this call did."""
    seconds: float
    """Wall time of the call."""


def folder_of(name: str) -> Path:
    """A run by name under runs/, or by path when the name has a slash."""
    if name.strip() in ("", ".", ".."):
        raise UsageError(
            "this is no name for a run", where=f"--run {name!r}", fix="for instance --run first"
        )
    return Path(name) if os.sep in name else RUNS / name


def existing_folder(name: str) -> Path:
    """The folder of a run that must exist; UsageError lists those that do."""
    folder = folder_of(name)
    if not (folder / RECIPE).exists():
        known = sorted(path.parent.name for path in RUNS.glob(f"*/{RECIPE}"))
        raise UsageError(
            f"no run named {name!r}",
            where=str(folder),
            fix=f"name one of: {', '.join(known)}" if known else "start one: localism run-all",
        )
    return folder


# ---- the recipe ----------------------------------------------------------------------------


def default_models() -> Path:
    """models.toml in the working folder, else the embedded default that ships with localism."""
    here = Path("models.toml")
    return here if here.exists() else packaged("models.toml")


def settle_recipe(folder: Path, models: Path | None, overrides: Sequence[str]) -> Config:
    """The configuration of a run. What its rows were made with is frozen, and the rest may change.

    The section of a stage is frozen when that stage starts, everything else when the run does; keys
    of mere speed stay free, and `mix.train` may grow until training starts (docs/decisions/0004).
    The models.toml that a run was started with is read again at every call, so that an edit is
    noticed rather than ignored. Raises UsageError, naming the keys that may not change any more.
    """
    if not (folder / RECIPE).exists():
        source = models or default_models()
        config = load(source, overrides)
        folder.mkdir(parents=True, exist_ok=True)
        if _write_recipe(folder, source, overrides, config, is_new=True):
            return config
        # Another process started the run at this very moment: its recipe holds.
    frozen, asked = _frozen(folder), _asked(folder, models, overrides)
    started = _started(folder)
    changed = [
        change
        for change in _differences(frozen.recipe(), asked.config.recipe())
        if not _may_change(change, started)
    ]
    if changed:
        named = ", ".join(sorted(f"{c.key} ({c.before!r} -> {c.after!r})" for c in changed))
        raise UsageError(
            f"this run was started with another recipe; {named} would change",
            where=f"{folder / RECIPE}, against {asked.models}",
            fix=f"`localism fork {folder.name} NEW` starts a run with the new one and reuses every "
            "model call that stays the same; or undo the change",
        )
    if asked.config != frozen:
        _write_recipe(folder, asked.models, asked.overrides, asked.config)
    return asked.config


class _Recipe(NamedTuple):
    """A configuration and where it was read from."""

    models: Path
    overrides: tuple[str, ...]
    config: Config


def _stored(folder: Path) -> dict[str, Any]:
    """models, overrides and config of recipe.json."""
    try:
        stored: dict[str, Any] = json.loads((folder / RECIPE).read_text())
        return {key: stored[key] for key in ("models", "overrides", "config")}
    except (ValueError, KeyError, TypeError) as damaged:
        raise ConfigError(
            "the recipe of this run cannot be read",
            where=f"{folder / RECIPE}: {damaged}",
            fix='its config is also in the corpus (localism sql "SELECT recipe FROM run"); restore '
            "the file, or start a new run with --run NEW",
        ) from None


def _frozen(folder: Path) -> Config:
    return validate(_stored(folder)["config"], str(folder / RECIPE))


def _asked(folder: Path, models: Path | None, overrides: Sequence[str]) -> _Recipe:
    """What a call asks of an existing run: its own models.toml and overrides, then the call's."""
    stored = _stored(folder)
    source, merged = models or Path(stored["models"]), (*stored["overrides"], *overrides)
    if models or source.exists():
        return _Recipe(source, merged, load(source, merged))
    table = apply_overrides(stored["config"], overrides)
    config = validate(table, str(folder / RECIPE))
    check_files(config, str(folder / RECIPE))
    return _Recipe(source, merged, config)


def _write_recipe(
    folder: Path, models: Path, overrides: Sequence[str], config: Config, *, is_new: bool = False
) -> bool:
    """Freeze a recipe; is_new: only if there is none yet. Returns whether it was written."""
    content = {
        "models": str(models.resolve()),
        "overrides": list(overrides),
        "config": config.model_dump(mode="json"),
    }
    temporary = folder / f"{RECIPE}.{os.getpid()}"
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    if not is_new:
        os.replace(temporary, folder / RECIPE)
        return True
    try:
        os.link(temporary, folder / RECIPE)  # unlike a rename, refused where one is already
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


class _Change(NamedTuple):
    """A key of the recipe, dotted, and its two values."""

    key: str
    before: Any
    after: Any


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[_Change]:
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield _Change(f"{prefix}{key}", before, after)


def _may_change(change: _Change, started: set[str]) -> bool:
    section = change.key.partition(".")[0]
    if section in STAGES and section not in started:
        return True
    return _is_extension(change) and "train" not in started


def _is_extension(change: _Change) -> bool:
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
        "SELECT stage FROM turn UNION SELECT stage FROM event WHERE kind = 'stage_finished'"
        " UNION SELECT stage FROM event WHERE kind = 'stage_started' AND stage = 'train'",
    ).rows
    found = {row[0] for row in rows}
    for stage, tables in ROWS.items():
        counts = (f"EXISTS (FROM {table})" for table in tables)
        if reader.read(folder, f"SELECT {' OR '.join(counts)}").rows[0][0]:
            found.add(stage)
    return found


def headline(folder: Path, config: Config) -> str:
    """One line that says which run this is and what takes part."""

    def short(path: str, endpoints: Sequence[str]) -> str:
        return path.split("/")[-1] if path else f"{len(endpoints)} endpoint(s)"

    teacher, student = config.teacher, config.student
    judge = (
        "the teacher" if config.judge.same_as else short(config.judge.path, config.judge.endpoints)
    )
    return (
        f"run {folder.name}   teacher {short(teacher.path, teacher.endpoints)}   judge {judge}   "
        f"student {short(student.path, ())}   seed {config.seed}"
        + ("   (a rehearsal: tiny models)" if config.is_rehearsal() else "")
    )


# ---- opening -------------------------------------------------------------------------------


@contextmanager
def opened(folder: Path, config: Config, progress: Progress) -> Iterator[Context]:
    """A run open for work: locked, air gap closed, corpus writable and readable from outside."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        urls = [u for role in ("teacher", "judge") for u in config.served(role).endpoints]
        offline.close_air_gap(folder, urls)
        with Store(folder / reader.CORPUS) as store, reader.answering(store, folder):
            _record_run(store, folder, config)
            assets.record(store, config)
            yield Context(config, store, folder, progress)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                f"this run is already being worked on, by process {lock.read().strip()}",
                where=str(folder),
                fix=f"wait for it, or look: localism status --run {folder.name}",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _record_run(store: Store, folder: Path, config: Config) -> None:
    """Note the run at its first call, and at a later one what changed in its recipe."""
    known = store.query("SELECT recipe, recipe_hash FROM run")
    if not known:
        store.add(
            "run",
            run_id=stable_id("run", config.recipe_hash()),
            name=folder.name,
            created_at=now(),
            version=__version__,
            recipe=config.model_dump_json(),
            recipe_hash=config.recipe_hash(),
            rehearsal=config.is_rehearsal(),
        )
    elif known[0]["recipe_hash"] != config.recipe_hash():
        earlier = validate(json.loads(known[0]["recipe"]), str(folder / RECIPE))
        changes = list(_differences(earlier.recipe(), config.recipe()))
        with store.transaction():
            store.execute(
                "UPDATE run SET recipe = ?, recipe_hash = ?",
                [config.model_dump_json(), config.recipe_hash()],
            )
            store.event("recipe_changed", keys={c.key: [c.before, c.after] for c in changes})
            if any(map(_is_extension, changes)):
                reopen(store, "mix")


# ---- stages --------------------------------------------------------------------------------


def finished_stages(store: Store) -> dict[str, str]:
    """Stage -> its summary, for those that are done and were not opened again."""
    done: dict[str, str] = {}
    for row in store.query(
        "SELECT stage, kind, detail->>'summary' AS summary FROM event "
        "WHERE kind IN ('stage_finished', 'stage_reopened') ORDER BY happened_at, stage"
    ):
        if row["kind"] == "stage_finished":
            done[row["stage"]] = row["summary"]
        else:
            done.pop(row["stage"], None)
    return done


def reopen(store: Store, first: str) -> None:
    """Have a stage and those after it done again, where they were: there is more to do."""
    for stage in STAGES[STAGES.index(first) :]:
        if stage in finished_stages(store):
            store.event("stage_reopened", stage)


def run_stages(context: Context, wanted: Sequence[str]) -> Outcome:
    """Do the wanted stages that are not done, in order.

    Raises StageError when a stage cannot finish, or when one before it is missing.
    """
    started, worked = time.monotonic(), []
    done = finished_stages(context.store)
    for stage in wanted:
        index = STAGES.index(stage) + 1
        # The page is made again when it is gone, or asked for by its own command.
        is_page = stage == "report" and (
            len(wanted) == 1 or not (context.folder / "report.html").exists()
        )
        if stage in done and not is_page:
            context.progress.skip(index, len(STAGES), stage, done[stage].splitlines()[0])
            continue
        missing = [name for name in STAGES[: index - 1] if name not in done]
        if missing:
            raise StageError(
                f"stage {stage} needs stage {missing[0]}, which has not been done",
                where=str(context.folder),
                fix=f"localism {missing[0]} --run {context.folder.name}",
            )
        context.progress.begin(index, len(STAGES), stage)
        context.store.event("stage_started", stage)
        summary = importlib.import_module(f"localism.stages.{stage}").run(context)
        check_books(context.store, BOOKS.get(stage, ()))
        context.store.event("stage_finished", stage, summary=summary)
        context.progress.end(summary)
        done[stage] = summary
        worked.append(stage)
    return Outcome(tuple(worked), time.monotonic() - started)


def top_up(context: Context) -> str:
    """Plan mixes for what curation left short and open the stages from generate on again.

    Raises StageError before curate is done, or when training has begun.
    """
    done = finished_stages(context.store)
    started = context.store.value(
        "SELECT count(*) FROM event WHERE kind = 'stage_started' AND stage = 'train'"
    )
    if "curate" not in done or started:
        raise StageError(
            "mixes can be topped up between curate and train",
            where=str(context.folder),
            fix=f"`localism fork {context.folder.name} NEW` and top up there"
            if started
            else f"localism curate --run {context.folder.name}, then again",
        )
    stage = importlib.import_module("localism.stages.mix")
    with context.store.transaction():
        planned, summary = stage.top_up(context)
        if planned:
            context.store.event("mixes_topped_up", "mix", summary=summary)
            reopen(context.store, "generate")
    return str(summary)


def check_books(store: Store, names: Sequence[str]) -> None:
    """Every planned row is accounted for and none is pending; anything else is a bug of ours."""
    for row in store.query("SELECT * FROM books"):
        if row["stage"] not in names:
            continue
        parts = row["accepted"] + row["rejected"] + row["failed"] + row["pending"]
        if parts != row["planned"] or row["pending"]:
            raise RuntimeError(f"books of stage {row['stage']} do not balance: {row}")


# ---- fork ----------------------------------------------------------------------------------


def fork(old: str, new: str, models: Path | None, overrides: Sequence[str]) -> tuple[int, str]:
    """Start run `new` with another recipe and the ledger of run `old`.

    Returns the number of turns carried and what to do next. A model call is found in the ledger by
    what was asked of which model, so the new run pays only for calls that its changed recipe makes
    different. Skills from a list are no model calls: they have to be imported again.
    """
    import duckdb

    source, target = existing_folder(old), folder_of(new)
    if target.exists():
        raise UsageError(
            f"run {new!r} exists already", where=str(target), fix="choose another name"
        )
    recipe = _asked(source, models, overrides)
    if not (source / reader.CORPUS).exists():
        raise UsageError(
            f"run {old!r} has no corpus to carry over",
            where=str(source / reader.CORPUS),
            fix=f"start the new one by itself: localism run-all --run {new}",
        )
    # Built beside its place and renamed, so that a fork is there whole or not at all.
    building = target.with_name(f"{target.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        carried = _carry_turns(source / reader.CORPUS, building / reader.CORPUS)
    except duckdb.IOException:
        shutil.rmtree(building)
        raise UsageError(
            f"run {old!r} is being worked on",
            where=str(source),
            fix="fork it when it has ended or has been interrupted",
        ) from None
    _write_recipe(building, *recipe)
    building.rename(target)
    edits = "SELECT 1 FROM event WHERE kind IN ('skills_imported', 'skills_edited')"
    if reader.read(source, edits).rows:
        where = f"skills came from a file: localism skills import FILE.csv --run {new}"
        return carried, f"its {where}, then localism run-all --run {new}"
    return carried, f"localism run-all --run {new}"


def _carry_turns(old: Path, new: Path) -> int:
    import duckdb

    Store(new).close()
    with duckdb.connect(str(new)) as connection:
        connection.execute(f"ATTACH '{_quoted(old)}' AS old (READ_ONLY)")
        connection.execute("INSERT INTO turn BY NAME SELECT * FROM old.turn")
        (carried,) = connection.execute("SELECT count(*) FROM turn").fetchone() or (0,)
    return int(carried)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
