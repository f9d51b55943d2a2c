"""A run that is asked for more mixes, or topped up, does only what is new."""

import io
from pathlib import Path

import pytest
from engines import embedded_config

from localism import run
from localism.context import Context
from localism.errors import StageError
from localism.progress import Progress
from localism.recipe import Recipe
from localism.records import STAGES

pytestmark = pytest.mark.component

DATA_STAGES = STAGES[: STAGES.index("train")]
EXTRACT = {"topics": 4, "skills_per_topic": 4, "query_types": 2, "samples": 2, "max_rounds": 2}


@pytest.fixture
def worked(teacher, tmp_path: Path):
    """worked(train): the run with that many training mixes, up to curate; yields its context."""

    def work(train: int, then=None, **curate: str):
        config = embedded_config(
            **teacher.endpoints,
            extract=EXTRACT,
            mix={"train": train, "dev": 2, "test": 2},
            curate={"skills": "words", **curate},
        )
        asked = Recipe(Path("models.toml"), (), config)
        with run.opened(tmp_path / "grown", asked, Progress(io.StringIO(), plain=True)) as context:
            run.run_stages(context, DATA_STAGES)
            return then(context) if then else snapshot(context)

    return work


def snapshot(context: Context) -> dict[str, list[tuple]]:
    tables = {
        "mix": "SELECT mix_id, ordinal, split FROM mix ORDER BY ordinal",
        "turn": "SELECT turn_id, finished_at FROM turn WHERE stage = 'generate' ORDER BY turn_id",
        "candidate": "SELECT mix_id, instruction, response FROM candidate ORDER BY mix_id",
    }
    return {
        name: [tuple(row.values()) for row in context.store.query(sql)]
        for name, sql in tables.items()
    }


def test_more_mixes_extend_the_plan_and_only_they_are_written(worked) -> None:
    before, after = worked(6), worked(9)
    assert len(before["mix"]) == 10 and len(after["mix"]) == 13
    assert after["mix"][:10] == before["mix"]
    for table, grown in (("turn", 9), ("candidate", 3)):
        assert set(before[table]) <= set(after[table])
        assert len(after[table]) == len(before[table]) + grown
    assert worked(9) == after


def test_a_top_up_plans_once_and_the_next_call_writes_it(worked) -> None:
    def lose_and_top_up(context: Context) -> int:
        context.store.execute(
            "UPDATE candidate SET status = 'rejected' WHERE mix_id IN"
            " (SELECT mix_id FROM mix WHERE split = 'train' LIMIT 2)"
        )
        assert "mixes planned for" in run.top_up(context)
        assert "generate" not in run.finished_stages(context.store)
        assert "mix" in run.finished_stages(context.store)
        return context.store.value("SELECT count(*) FROM mix WHERE top_up")

    planned = worked(6, then=lose_and_top_up)
    assert planned >= 2
    after = worked(6)
    assert len(after["mix"]) == 10 + planned == len(after["candidate"])


def test_a_top_up_wants_a_curated_run(teacher, tmp_path: Path) -> None:
    asked = Recipe(Path("models.toml"), (), embedded_config(**teacher.endpoints))
    with run.opened(tmp_path / "new", asked, Progress(io.StringIO(), plain=True)) as context:
        with pytest.raises(StageError, match="between curate and train"):
            run.top_up(context)
