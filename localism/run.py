"""A run: its folder, its lock, and the nine stages in order."""

import importlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from localism import __version__, assets, lock, offline, reader
from localism.config import Config
from localism.context import Context
from localism.errors import REFUSALS, LocalismError, OutOfTime, StageError, UsageError
from localism.models_toml import validate
from localism.progress import Progress
from localism.recipe import (
    RECIPE,
    Recipe,
    check_frozen,
    differences,
    frozen_recipe,
    is_extension,
    named_hosts,
    sets_anything,
    without_the_call,
    words_of_the_call,
    write_recipe,
)
from localism.records import STAGES, SuiteOptions, stable_id
from localism.store import Store, now
from localism.tables import number_of
from localism.training.sets import MAIN, Training, examples

RUNS = Path("runs")
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
    if name.strip() in ("", ".", "..") or not name.isprintable():
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


def headline(folder: Path, config: Config) -> str:
    """One line that says which run this is and what takes part."""

    def short(path: str, endpoints: Sequence[str]) -> str:
        return path.split("/")[-1] if path else number_of(len(endpoints), "endpoint")

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
def opened(
    folder: Path, asked: Recipe, progress: Progress, server: str | None = None
) -> Iterator[Context]:
    """A run open for work: locked, air gap closed, corpus writable and readable from outside.

    `server`: a further URL that may be spoken to. The recipe that is asked for is the run's from
    here on; but when the call fails before it made anything, what it set is forgotten.
    """
    config = asked.config
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with _naming(folder), lock.held(folder, progress.say):
        check_frozen(folder, asked)  # another process may have begun the run meanwhile
        hosts = [*named_hosts(config), *([offline.host_of(server)] if server else [])]
        offline.close_air_gap(folder, hosts)
        with Store(folder / reader.CORPUS) as store, reader.answering(store, folder):
            with _settled(store, folder, asked):
                assets.record(store, config)
                yield Context(config, store, folder, progress)


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """A disk that is full at a write says not where: what a run writes is in its folder."""
    try:
        yield
    except OSError as refused:
        if refused.errno in REFUSALS and refused.filename is None:
            refused.filename = str(folder)
        raise


@contextmanager
def _settled(store: Store, folder: Path, asked: Recipe) -> Iterator[None]:
    """The recipe that is asked for is the run's; a call that fails in vain leaves the old one."""
    is_set, began = sets_anything(folder, asked), store.now()
    before = without_the_call(folder, asked) if is_set else None
    made = _rows_made(store) if is_set else {}
    if not (folder / RECIPE).exists() or frozen_recipe(folder) != asked.config:
        write_recipe(folder, *asked)
    _record_run(store, folder, asked.config)
    try:
        yield
    except LocalismError as refused:
        with suppress(LocalismError, OSError):  # of a full disk, which was the mistake then
            if is_set and _rows_made(store) == made:
                _take_back(store, folder, before, began)
                refused.fix += f"\n       {_forgotten(before, asked)}"
        raise


def _rows_made(store: Store) -> dict[str, int]:
    """How many rows each table has, but for those that say what a run is and what happened."""
    tables = store.query("SELECT table_name FROM duckdb_tables() WHERE NOT temporary")
    names = {row["table_name"] for row in tables} - {"run", "asset", "training", "event"}
    return {name: store.value(f"SELECT count(*) FROM {name}") for name in sorted(names)}


def _take_back(store: Store, folder: Path, before: Recipe | None, began: datetime) -> None:
    """The recipe as it was before a call that `began` then; none where it cannot be without it."""
    if before is None:
        (folder / RECIPE).unlink()
        return
    config = before.config
    with store.transaction():
        store.execute(
            "DELETE FROM event WHERE kind IN ('recipe_changed', 'stage_reopened') "
            "AND happened_at > ?",
            [began],
        )
        store.execute(
            "UPDATE run SET recipe = ?, recipe_hash = ?",
            [config.model_dump_json(), config.recipe_hash()],
        )
    write_recipe(folder, *before)


def _forgotten(before: Recipe | None, asked: Recipe) -> str:
    words = " ".join(words_of_the_call(before, asked))
    return f"nothing was made with {words}, so the run forgets it: give again what was right"


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
        changes = list(differences(earlier.recipe(), config.recipe()))
        with store.transaction():
            store.execute(
                "UPDATE run SET recipe = ?, recipe_hash = ?",
                [config.model_dump_json(), config.recipe_hash()],
            )
            store.event("recipe_changed", keys={c.key: [c.before, c.after] for c in changes})
            if any(map(is_extension, changes)):
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

    Raises StageError when a stage cannot finish, when one before it is missing, and when the books
    of a wanted stage do not balance in the end, also of one that was done earlier.
    """
    started, worked = time.monotonic(), []
    done = finished_stages(context.store)
    for stage in ("train", "evaluate"):  # what would stop them is better known now
        if stage in wanted and stage not in done:
            importlib.import_module(f"localism.stages.{stage}").check(context)
    for stage in wanted:
        index = STAGES.index(stage) + 1
        # The page is made again when it is gone, or asked for by its own command.
        is_page = stage == "report" and (
            len(wanted) == 1 or not (context.folder / "report.html").exists()
        )
        if stage in done and not is_page:
            context.progress.skip(index, len(STAGES), stage, done[stage].splitlines()[0])
            continue
        require(context, f"stage {stage}", STAGES[: index - 1])
        if context.time_left() <= 0:
            raise OutOfTime
        context.progress.begin(index, len(STAGES), stage)
        offline.is_at(stage)
        context.store.event("stage_started", stage)
        summary = importlib.import_module(f"localism.stages.{stage}").run(context)
        check_books(context.store, BOOKS.get(stage, ()))
        context.store.event("stage_finished", stage, summary=summary)
        context.progress.end(summary)
        done[stage] = summary
        worked.append(stage)
    check_books(context.store, [book for stage in wanted for book in BOOKS.get(stage, ())])
    return Outcome(tuple(worked), time.monotonic() - started)


def require(context: Context, what: str, stages: Sequence[str]) -> None:
    """Raise StageError when one of the stages that something needs has not been done."""
    done = finished_stages(context.store)
    for stage in stages:
        if stage not in done:
            raise StageError(
                f"{what} needs stage {stage}, which has not been done",
                where=str(context.folder),
                fix=f"localism {stage} --run {context.folder.name}",
            )


def run_trainings(context: Context, stage: str, trainings: Sequence[Training]) -> Outcome:
    """Do train, pick or evaluate for trainings beside the run's own; what is there is not redone.

    Raises StageError before curate is done, UsageError for a set that does not exist.
    """
    started = time.monotonic()
    worked = run_stages(context, [stage]).worked if MAIN in {t.name for t in trainings} else ()
    others = [training for training in trainings if training.name != MAIN]
    if others:
        require(context, f"stage {stage}", STAGES[: STAGES.index("train")])
        for training in others:
            examples(context.store, training.set_name)
        context.progress.begin(STAGES.index(stage) + 1, len(STAGES), stage)
        offline.is_at(stage)
        summary = importlib.import_module(f"localism.stages.{stage}").run(context, others)
        books = [f"{book} {training.name}" for book in BOOKS.get(stage, ()) for training in others]
        check_books(context.store, books)
        context.progress.end(summary)
        worked = (*worked, stage)
    return Outcome(worked, time.monotonic() - started)


def run_suites(context: Context, asked: SuiteOptions) -> Outcome:
    """Evaluate models on benchmarks; the report is made again."""
    started = time.monotonic()
    context.progress.begin(STAGES.index("evaluate") + 1, len(STAGES), "evaluate")
    offline.is_at("evaluate")
    summary = importlib.import_module("localism.stages.evaluate_suites").run(context, asked)
    context.store.event("suites_evaluated", "evaluate", summary=summary)
    context.progress.end(summary)
    if (context.folder / "report.html").exists() and "evaluate" in finished_stages(context.store):
        reopen(context.store, "report")
        run_stages(context, ("report",))
    return Outcome(("evaluate",), time.monotonic() - started)


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
    """StageError unless every planned row of these books is accounted for and none is pending."""
    for row in store.query("SELECT * FROM books"):
        parts = row["accepted"] + row["rejected"] + row["failed"] + row["pending"]
        if row["stage"] in names and (parts != row["planned"] or row["pending"]):
            counts = ", ".join(f"{row[name]:,} {name}" for name in list(row)[1:])
            raise StageError(
                f"the books of {row['stage']} do not balance: {counts}",
                where="view books of the corpus",
                fix="rows were lost, by a change of the file from outside or by a bug of localism:"
                " keep this run folder, and `localism fork` it, which pays for no call twice",
            )
