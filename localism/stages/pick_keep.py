"""After the pick: the weights of checkpoints that nobody asked to keep ([train].keep).

Rows, answers, judgments and losses stay, and so does each checkpoint's folder with its facts, so
that train still knows that the epoch was done; its row's path then says `removed`.
"""

import shutil

from localism.context import Context
from localism.errors import StageError
from localism.training.job import ADAPTER, REMOVED
from localism.training.sets import Training

__all__ = ["REMOVED", "discard", "removed_weights"]


def discard(context: Context, training: Training) -> int:
    """Remove the weights that [train].keep doesn't name; returns how many checkpoints lost theirs.

    Without a pick there is nothing to tell them by, and all stay.
    """
    keep, store = context.config.train.keep, context.store
    rows = store.query("SELECT * FROM checkpoint WHERE training = ?", [training.name])
    if keep == "all" or not any(row["picked"] for row in rows):
        return 0
    others = [
        row
        for row in rows
        if not (row["picked"] or (keep == "tied" and row["tied"]) or row["path"] == REMOVED)
    ]
    for row in others:
        folder = context.folder / row["path"]
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        shutil.rmtree(folder / ADAPTER, ignore_errors=True)
        # After the weights: a row that still names its folder is done again by the next call.
        store.execute(
            "UPDATE checkpoint SET path = ? WHERE checkpoint_id = ?",
            [REMOVED, row["checkpoint_id"]],
        )
    return len(others)


def removed_weights(model_id: str) -> StageError:
    """What to say when weights are needed that are gone."""
    return StageError(
        f"the weights of {model_id} were removed after an earlier pick",
        where="[train].keep",
        fix="train again in a fork of this run, with keep = 'all'",
    )
