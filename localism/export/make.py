"""What `localism export` was asked for -> one whole folder of data, model, or both."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from localism.compare import Read
from localism.config import Config
from localism.context import Context
from localism.errors import StageError, UsageError
from localism.export import cards, data, model
from localism.export.folder import whole_folder
from localism.export.rows import SPLITS, Row, TrainingSet, training_set
from localism.export.shapes import KINDS
from localism.licences import RunLicences, conflicts, of_run
from localism.paths import embedded
from localism.records import Split
from localism.training.sets import ACCEPTED

FORMS = ("instruction", "messages")
"""Shapes that are written when nobody says."""
CARD = "README.md"
_EARLIER = [CARD, *(f"{split}.{kind}" for split in SPLITS for kind in ("jsonl", "parquet"))]


@dataclass(frozen=True)
class Asked:
    """An export that somebody asked for."""

    target: Path
    """Folder to write."""
    what: Literal["data", "model", "all"] = "data"
    """With all, it gets a folder data and a folder model."""
    set_name: str = ACCEPTED
    """Of the examples and of the training."""
    forms: tuple[str, ...] = FORMS
    """Shapes of the data, each a configuration of the data set; the first is its default."""
    kinds: tuple[str, ...] = KINDS
    """Of the data's files; loaders are pointed to the first."""
    splits: tuple[Split, ...] = SPLITS
    """Of the data."""
    checkpoint: str | None = None
    """In place of the picked one."""
    overwrite: bool = False
    """Replace an earlier export."""
    accept_licences: bool = False
    """Export although a licence forbids something."""


def export(read: Read, run_folder: Path, config: Config, asked: Asked) -> Row:
    """Write what was asked for and return its facts.

    Raises UsageError for what cannot be asked for and for licences that want a yes, StageError for
    a model that is not what was measured, MachineError for a disk that is too small.
    """
    chosen = trained = training_set(read, asked.set_name)
    files: list[Path] = []
    if asked.what != "data":
        row = model.checkpoint(read, asked.set_name, asked.checkpoint)
        files = model.files_to_copy(run_folder, row)
        trained = _trained_on(read, row)
    if asked.what != "model":
        data.require_curated(read, run_folder.name)
    sets = {"data": [chosen], "model": [trained], "all": [chosen, trained]}[asked.what]
    sources = {name: one for of in sets for name, one in data.parents(config, of).items()}
    licences = of_run(config, sources)
    if asked.what == "data":  # there is nothing of student and judge in it
        against = conflicts(sources, licences.roles["student"])
        licences = replace(licences, conflicts=against)
    _check_licences(licences, asked)
    facts: Row = {"to": str(asked.target), "what": asked.what, "run": run_folder.name}
    needed = sum(path.stat().st_size for path in files)
    with whole_folder(asked.target, overwrite=asked.overwrite, needed_bytes=needed) as folder:
        if asked.what != "model":
            place = folder / "data" if asked.what == "all" else folder
            facts |= _write_data(place, read, config, asked, chosen, licences)
        if asked.what != "data":
            place = folder / "model" if asked.what == "all" else folder
            base = embedded(config.student.path) if config.student.path else None
            model.write(place, files, row, base)
            card = cards.model_card(read, config, trained, row, licences)
            (place / CARD).write_text(card, encoding="utf-8")
            facts |= {"checkpoint": row["checkpoint_id"], "bytes": needed}
            facts |= {"fingerprint": row["fingerprint"]}
    return facts | {"licences": asdict(licences)}


def _write_data(
    folder: Path,
    read: Read,
    config: Config,
    asked: Asked,
    chosen: TrainingSet,
    licences: RunLicences,
) -> Row:
    folder.mkdir(exist_ok=True)
    forms, kinds = asked.forms, asked.kinds
    splits = data.write(folder, read, config, chosen, licences.data, forms, kinds, asked.splits)
    card = cards.data_card(read, config, chosen, forms, kinds, splits, licences)
    (folder / CARD).write_text(card, encoding="utf-8")
    return {"set": chosen.name, "formats": list(forms), "files": list(kinds), "splits": splits}


def _trained_on(read: Read, row: Row) -> TrainingSet:
    """The set that a checkpoint was trained on."""
    trainings = read("SELECT name, set_name FROM training") if row["training"] != "main" else []
    names = {one["name"]: one["set_name"] for one in trainings}
    return training_set(read, names.get(row["training"], ACCEPTED))


def _check_licences(licences: RunLicences, asked: Asked) -> None:
    """Stop at what a licence forbids until somebody says that it is known."""
    if licences.conflicts and not asked.accept_licences:
        found = {one.source: role for role, one in licences.roles.items() if one.forbids}
        raise UsageError(
            f"a licence stands against this export: {'; '.join(licences.conflicts)}",
            where="; ".join(f"{role}: {source}" for source, role in found.items()),
            fix="read it; --accept-licences exports for uses that it permits",
        )


def keep_in_run(context: Context) -> dict[str, int]:
    """The run's own copy of its data, under export/; returns examples a split.

    Made anew at each report. A folder that holds somebody's files is left alone, with a warning.
    """
    asked = Asked(context.folder / "export", overwrite=True, accept_licences=True)
    read, config = context.store.query, context.config
    chosen = TrainingSet(ACCEPTED)
    licences = of_run(config)
    for conflict in licences.conflicts:
        context.warn("report", f"licence: {conflict}")
    try:
        with whole_folder(asked.target, overwrite=True, known=_EARLIER) as folder:
            facts = _write_data(folder, read, config, asked, chosen, licences)
    except (UsageError, StageError) as refused:
        context.warn("report", f"export/ was not written: {refused.problem}")
        return {}
    return {row["split"]: row["examples"] for row in facts["splits"]}
