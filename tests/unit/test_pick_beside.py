"""Where the judge works beside the student: with endpoints, or GPUs that the student leaves."""

import pytest
from engines import NewContext, embedded_config

from localism.errors import ConfigError
from localism.gpus import Device, Gpus, of_devices
from localism.stages.pick_beside import Beside, beside, on_gpus


def h100s(number: int) -> Gpus:
    return of_devices([Device(str(n), f"GPU-{n}", 80 * 2**30, 0) for n in range(number)])


def names(gpus: Gpus | None) -> str:
    assert gpus is not None
    return "".join(device.name for device in gpus.devices)


def test_the_judge_takes_the_first_gpus_and_the_student_those_behind() -> None:
    config = embedded_config(teacher={"tensor_parallel": 2}, student={"data_parallel": 2})
    shares = {
        number: (names(found.judge), names(found.student))
        for number in (4, 5, 8)
        if (found := on_gpus(config, h100s(number))).is_on
    }
    assert shares == {4: ("01", "23"), 5: ("012", "34"), 8: ("0123", "4567")}
    assert on_gpus(config, h100s(3)) == Beside(False)


def test_what_needs_more_than_half_of_the_gpus_gets_it() -> None:
    judge = on_gpus(embedded_config(teacher={"data_parallel": 3}), h100s(4))
    student = on_gpus(embedded_config(student={"data_parallel": 3}), h100s(4))
    assert (names(judge.judge), names(judge.student)) == ("012", "3")
    assert (names(student.judge), names(student.student)) == ("0", "123")


def test_two_small_models_share_the_gpus_without_being_told_their_sizes() -> None:
    found = on_gpus(embedded_config(), h100s(2))
    assert (names(found.judge), names(found.student)) == ("0", "1")
    assert not on_gpus(embedded_config(), h100s(1)).is_on


def test_too_few_gpus_are_an_error_where_both_were_asked_for() -> None:
    config = embedded_config(teacher={"data_parallel": 4}, pick={"beside": "yes"})
    with pytest.raises(ConfigError, match=r"need 4 \+ 1 GPUs to run at once, and there are 4"):
        on_gpus(config, h100s(4))


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
