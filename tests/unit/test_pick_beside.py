"""Where the judge works beside the student: with endpoints, or GPUs that the student leaves."""

import pytest
from engines import NewContext, embedded_config

from localism.errors import ConfigError
from localism.serving.engine import Engine
from localism.stages.pick_beside import Beside, beside, on_gpus


def test_the_judge_takes_the_first_gpus_and_the_student_those_behind() -> None:
    config = embedded_config(teacher={"tensor_parallel": 4}, student={"data_parallel": 2})
    assert on_gpus(config, 8) == on_gpus(config, 6) == Beside(True, 4)
    assert on_gpus(config, 5) == Beside(False, 0)


def test_too_few_gpus_are_an_error_where_both_were_asked_for() -> None:
    config = embedded_config(teacher={"tensor_parallel": 4}, pick={"beside": "yes"})
    with pytest.raises(ConfigError, match=r"need 4 \+ 1 GPUs to run at once, and there are 4"):
        on_gpus(config, 4)


def test_a_judge_behind_endpoints_is_always_beside_unless_told_not_to(
    new_context: NewContext,
) -> None:
    away = {"path": "", "endpoints": ["http://127.0.0.1:1/v1"]}
    assert beside(new_context(embedded_config(teacher=away))).is_on
    off = embedded_config(teacher=away, pick={"beside": "no"})
    assert not beside(new_context(off, "off")).is_on


def test_on_a_cpu_only_yes_runs_both(new_context: NewContext) -> None:
    assert not beside(new_context(embedded_config())).is_on
    assert beside(new_context(embedded_config(pick={"beside": "yes"}), "yes")).is_on


@pytest.mark.parametrize(
    ("seen", "own"), [({}, "4,5"), ({"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1"}, "3,2")]
)
def test_an_engine_behind_another_sees_its_own_gpus_alone(
    new_context: NewContext, seen: dict[str, str], own: str
) -> None:
    context = new_context(embedded_config(student={"tensor_parallel": 2}))
    assert Engine(context, "student", "pick", behind_gpus=4)._own_gpus(seen) == own
