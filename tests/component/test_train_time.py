"""Stage train when the time is up: it ends between two epochs, and a later call goes on."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from trainings import opened, recipe, rows

from localism.errors import OutOfTime
from localism.stages import train
from localism.training.job import Job

pytestmark = pytest.mark.component


def test_out_of_time_ends_after_an_epoch_and_the_same_call_goes_on(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    with opened(tmp_path, recipe()) as context:
        # Over long before the first epoch is; that one is finished all the same. The steps of the
        # miniature are so short that a second one may be over before it is noticed.
        with pytest.raises(OutOfTime, match="[12] of 3 epochs"):
            train.run(replace(context, deadline=time.monotonic() + 0.5))
        assert len(context.store.query("FROM checkpoint")) in (1, 2)
        train.run(context)
    assert Job.read(tmp_path / "train/job.json").resume_from, "it did not start over"
    columns = "SELECT epoch, step, fingerprint FROM checkpoint ORDER BY epoch"
    assert rows(tmp_path, columns) == rows(finished[0], columns)


def test_a_training_whose_time_is_over_is_not_begun(tmp_path: Path) -> None:
    with opened(tmp_path, recipe()) as context:
        with pytest.raises(OutOfTime, match="not begun"):
            train.run(replace(context, deadline=time.monotonic() - 1))
    assert not (tmp_path / "train/job.json").exists()
