"""Whether the judge may work beside the student: on hardware that neither has to share.

Two engines on one GPU would have to split its memory by a guess at what each needs, for hours of
work before it to be lost to a wrong one; so they stand beside each other where the judge has GPUs
of its own, or a machine. docs/log.md has what that is worth.
"""

from typing import NamedTuple

from localism.config import Config, Served
from localism.context import Context
from localism.errors import ConfigError
from localism.offline import child_environment
from localism.serving.engine import engine_kind
from localism.training.gpus import find_gpus


class Beside(NamedTuple):
    """How the two share the machine."""

    is_on: bool
    """Both run at once; else one after the other."""
    judge_gpus: int
    """The judge's are the first; the student takes those behind them."""


def beside(context: Context) -> Beside:
    """What [pick].beside comes to here; ConfigError for "yes" with too few GPUs."""
    config = context.config
    judge = config.served("judge")
    if config.pick.beside == "no":
        return Beside(False, 0)
    if judge.endpoints:
        return Beside(True, 0)
    if engine_kind("student") == "cpu":
        # Two engines on a CPU take each other's time; what they gain is each other's idle minutes.
        return Beside(config.pick.beside == "yes", 0)
    gpus = find_gpus(child_environment(context.folder)).number
    return on_gpus(config, gpus)


def on_gpus(config: Config, gpus: int) -> Beside:
    """The judge's GPUs first and the student's behind them, if there are as many."""
    judge, student = (gpus_of(config.served(role)) for role in ("judge", "student"))
    if judge + student <= gpus:
        return Beside(True, judge)
    if config.pick.beside == "yes":
        raise ConfigError(
            f"judge and student need {judge} + {student} GPUs to run at once, and there are {gpus}",
            where='[pick].beside = "yes"',
            fix='beside = "auto", which then runs one after the other',
        )
    return Beside(False, 0)


def gpus_of(section: Served) -> int:
    """How many GPUs an engine takes."""
    return section.tensor_parallel * section.data_parallel
