"""A checkpoint of a run -> a folder that transformers, vLLM and TRL load, with its card.

A checkpoint is one already (training/saving.py); what resuming needs, the trainer's own notes and
LoRA's matrices, which are merged into the weights, are left out.
"""

import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

from localism import weights
from localism.compare import Read
from localism.errors import StageError, UsageError
from localism.export.rows import Row, columns, quoted
from localism.training.job import CHECKPOINT_FACTS, REMOVED
from localism.training.saving import TRAINER_ONLY
from localism.training.sets import ACCEPTED, MAIN

_TERMS = re.compile(r"(licen[sc]e|notice|copying|use_policy)", re.I)
_MOST_BYTES = 2**20  # of a licence file


def checkpoint(read: Read, set_name: str, wanted: str | None) -> Row:
    """The row of a checkpoint by its id, or of the picked one of the set's training.

    UsageError names those there are.
    """
    there = columns(read, "checkpoint")
    rows = read("SELECT * FROM checkpoint ORDER BY checkpoint_id") if there else []
    training = MAIN if set_name == ACCEPTED else set_name
    own = [row for row in rows if row.get("training", MAIN) == training]
    if wanted:
        found = [row for row in rows if row["checkpoint_id"] == wanted]
    else:
        found = [row for row in own if row["picked"]]
    if found:
        return {"training": MAIN, **found[0]}
    names = ", ".join(row["checkpoint_id"] for row in own or rows)
    raise UsageError(
        f"there is no checkpoint {wanted!r}"
        if wanted
        else f"no checkpoint of {training} has been picked",
        where="--checkpoint" if wanted else "--what model",
        fix=f"--checkpoint takes {names}; localism pick chooses one"
        if names
        else "localism train and localism pick make one",
    )


def files_to_copy(run_folder: Path, row: Row) -> list[Path]:
    """The files of a checkpoint that make a model.

    Raises StageError for weights that are gone and for a link, ConfigError for a torn folder.
    """
    folder = run_folder / row["path"]
    if row["path"] == REMOVED:
        raise StageError(
            f"the weights of {row['checkpoint_id']} were removed after the pick",
            where="[train].keep",
            fix="export the picked checkpoint, or train again in a fork with keep = 'all'",
        )
    weights.check_model_folder(folder, row["checkpoint_id"])
    left_out = (*TRAINER_ONLY, CHECKPOINT_FACTS)
    found = [
        path
        for path in sorted(folder.iterdir())
        if not any(fnmatch(path.name, pattern) for pattern in left_out)
    ]
    links = [path for path in found if path.is_symlink()]
    if links:
        raise StageError(
            "a link in a checkpoint is not followed",
            where=str(links[0]),
            fix="put the file itself there",
        )
    return [path for path in found if path.is_file()]


def write(target: Path, files: list[Path], row: Row, base: Path | None) -> None:
    """Copy the files, and the licence files of the base model beside them.

    Raises StageError when the copy is not the checkpoint that was measured.
    """
    target.mkdir(exist_ok=True)
    for path in files:
        shutil.copyfile(path, target / path.name, follow_symlinks=False)
    found = weights.fingerprint(target)
    if found != row["fingerprint"]:
        raise StageError(
            f"{row['checkpoint_id']} is not what the run trained and measured",
            where=f"{files[0].parent}: fingerprint {found}, in the corpus {row['fingerprint']}",
            fix="put its files back from a copy, or train again in a fork",
        )
    for path in licence_files(base) if base else []:
        shutil.copyfile(path, target / path.name)


def licence_files(base: Path) -> list[Path]:
    """Licence, notice and use policy of a model folder; of links, those that stay within it.

    In a hub cache every file is a link into the same model's folder of contents.
    """
    root = base.parent.parent if base.parent.name == "snapshots" else base
    if not base.is_dir():
        return []
    return [
        path
        for path in sorted(base.iterdir())
        if _TERMS.match(path.name)
        and path.is_file()
        and path.resolve().is_relative_to(root.resolve())
        and path.stat().st_size <= _MOST_BYTES
    ]


# ---- what is known of it -------------------------------------------------------------------

_SHOWN = ("win_rate", "lc_win_rate", "preference_gain")


def scores(read: Read, model_id: str) -> dict[str, Row]:
    """The scores of a model on test by metric: value, low, high, n, unscored, note."""
    rows = read(f"SELECT * FROM score WHERE split = 'test' AND model_id = {quoted(model_id)}")
    return {row["metric"]: row for row in rows if row["metric"] in _SHOWN}


def benchmarks(read: Read, model_id: str) -> list[Row]:
    """Whole-suite scores of a model; empty where no suite was run."""
    if not columns(read, "suite_score"):
        return []
    return read(
        "SELECT suite || if(is_sample, ' (a sample of localism''s own)', '') AS suite, judge,"
        " metric, value, low, high, n, unscored FROM evaluations"
        f" WHERE model_id = {quoted(model_id)} ORDER BY suite, judge, metric"
    )


def tie_set(read: Read, row: Row) -> list[str]:
    """Checkpoints of the same training that cannot be told from the picked one on dev."""
    where = "true" if "training" not in columns(read, "checkpoint") else (
        f"training = {quoted(row['training'])}"
    )  # fmt: skip
    found = read(
        f"SELECT checkpoint_id FROM checkpoint WHERE {where} AND tied AND NOT picked ORDER BY epoch"
    )
    return [one["checkpoint_id"] for one in found]
