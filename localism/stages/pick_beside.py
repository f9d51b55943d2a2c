"""Whether the judge may work beside the student: on hardware that neither has to share.

Two engines on one GPU would have to split its memory by a guess at what each needs, for hours of
work before it to be lost to a wrong one; so they stand beside each other where the judge has GPUs
of its own, or a machine. docs/log.md has what that is worth.
"""

from typing import NamedTuple

from localism.config import Config, Served
from localism.context import Context
from localism.errors import ConfigError
from localism.gpus import Gpus, find_gpus
from localism.offline import child_environment
from localism.paths import embedded
from localism.serving.engine import engine_kind, table_of
from localism.serving.memory import needed
from localism.serving.placement import place


class Beside(NamedTuple):
    """How the two share the machine."""

    is_on: bool
    """Both run at once; else one after the other."""
    judge: Gpus | None = None
    """Those that the judge may take; None for all."""
    student: Gpus | None = None
    """Those that the student may take, none of which is the judge's."""


def beside(context: Context) -> Beside:
    """What [pick].beside comes to here; ConfigError for "yes" with too few GPUs."""
    config = context.config
    judge = config.served("judge")
    if config.pick.beside == "no":
        return Beside(False)
    if judge.endpoints:
        return Beside(True)
    if engine_kind("student") == "cpu":
        # Two engines on a CPU take each other's time; what they gain is each other's idle minutes.
        return Beside(config.pick.beside == "yes")
    found = on_gpus(
        config, find_gpus(child_environment(context.folder)), table_of(context, "judge")
    )
    context.progress.say(_said(found))
    return found


def on_gpus(config: Config, gpus: Gpus, judge_table: str = "judge") -> Beside:
    """The judge's GPUs first and the student's behind them, if there are as many.

    Half of them each; more for the one whose copy needs more.
    """
    judge = smallest(config.served("judge"), gpus, judge_table)
    student = smallest(config.student, gpus, "student")
    if judge + student <= gpus.number:
        share = min(max(gpus.number - gpus.number // 2, judge), gpus.number - student)
        return Beside(True, gpus.part(0, share), gpus.part(share, gpus.number))
    if config.pick.beside == "yes":
        raise ConfigError(
            f"judge and student need {judge} + {student} GPUs to run at once, and there are "
            f"{gpus.number}",
            where='[pick].beside = "yes"',
            fix='beside = "auto", which then runs one after the other',
        )
    return Beside(False)


def smallest(section: Served, gpus: Gpus, table: str) -> int:
    """GPUs of an engine with one copy, or with as many as models.toml says."""
    given = section.model_copy(update={"data_parallel": section.data_parallel or 1})
    return place(needed(embedded(section.path), given), given, gpus, table).gpus


def _said(found: Beside) -> str:
    if not found.is_on or found.judge is None or found.student is None:
        return "judge and student work one after the other: their GPUs would not hold both"
    judge, student = (
        ", ".join(device.name for device in one.devices) for one in (found.judge, found.student)
    )
    return f"judge and student work at once: the judge has GPUs {judge}, the student {student}"
