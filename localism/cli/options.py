"""Options that several commands share."""

import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from localism.records import SuiteOptions

HELP_CHARACTERS = 90


class Group(click.Group):
    """Commands with what they are for, which click cuts off after 45 characters."""

    def sections(self) -> Mapping[str, Sequence[click.Command]]:
        """Commands by the title that stands over them."""
        return {"Commands": list(self.commands.values())}

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in self.sections().items():
            with formatter.section(title):
                formatter.write_dl(
                    [(str(one.name), one.get_short_help_str(HELP_CHARACTERS)) for one in commands]
                )


run_option = click.option(
    "--run",
    "name",
    default="default",
    show_default=True,
    metavar="NAME",
    help="A run under runs/, or the path of a run folder.",
)
models_option = click.option(
    "--models",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where a run is created: its models.toml.  [default: ./models.toml, "
    "else the built-in tiny models]",
)
overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of models.toml, for instance train.epochs=3.",
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "markdown"]),
    default="table",
    show_default=True,
    help="How rows are printed.",
)


class Positive(click.ParamType):
    """A number above 0; no infinity, and no nan."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """As click wants it."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            self.fail(f"{value!r} is not a number above 0", param, ctx)
        return number


def _set_deadline(context: click.Context, _: click.Parameter, hours: float | None) -> None:
    if hours is not None:
        context.obj["deadline"] = time.monotonic() + 3600 * hours


budget_option = click.option(
    "--budget-hours",
    type=Positive(),
    metavar="H",
    expose_value=False,
    callback=_set_deadline,
    help="Begin nothing new after so many hours: what is under way gets five minutes, and the same "
    "command continues later.",
)


def run_options(command: Any) -> Any:
    """--run, --models, --set, --budget-hours and --plain, for everything that works on a run."""
    plain = click.option("--plain", is_flag=True, help="Lines instead of a live display.")
    for option in (plain, budget_option, overrides_option, models_option, run_option):
        command = option(command)
    return command


class TrialOptions(NamedTuple):
    """What `localism generate --calibrate` was asked for."""

    seconds: float
    """Length of the trial."""
    watts: float | None
    """Power to count with; None measures it."""
    as_json: bool
    """Facts as one JSON object."""


TRIAL_SECONDS = 60.0
seconds_option = click.option(
    "--seconds",
    type=Positive(),
    metavar="N",
    help=f"Of the trial.  [default: {TRIAL_SECONDS:.0f}]",
)


def trial_options(stage: str) -> Any:
    """--calibrate and what belongs to it, for generate alone; the command is given `trial`."""
    if stage != "generate":
        return lambda command: command

    def decorate(command: Any) -> Any:
        @click.option(
            "--calibrate",
            is_flag=True,
            help="Try the plan for a minute and predict the "
            "hours, tokens and kWh of the rest; what the trial writes counts.",
        )
        @seconds_option
        @click.option(
            "--watts",
            type=Positive(),
            metavar="N",
            help="Count kWh with this power; measured where it can be when absent.",
        )
        @click.option("--json", "as_json", is_flag=True, help="The prediction as one JSON object.")
        @functools.wraps(command)
        def with_trial(
            calibrate: bool, seconds: float | None, watts: float | None, as_json: bool, **own: Any
        ) -> None:
            if not calibrate and (seconds or watts or as_json):
                raise click.UsageError("--seconds, --watts and --json belong to --calibrate")
            trial = TrialOptions(seconds or TRIAL_SECONDS, watts, as_json)
            command(**own, trial=trial if calibrate else None)

        return with_trial

    return decorate


MODEL_TEXT = (
    "Who answers: picked, base, a checkpoint_id, or the path of a model folder; may be repeated.  "
    "[default: picked and base]"
)


def suite_options(stage: str) -> Any:
    """--suite and what belongs to it, for evaluate alone; the command is given `suites`."""
    if stage != "evaluate":
        return lambda command: command

    def decorate(command: Any) -> Any:
        @click.option(
            "--suite",
            "names",
            multiple=True,
            metavar="NAME|FILE",
            help="A benchmark in place of the run's own test prompts: alpacaeval, mt-bench, "
            "wildbench, flask, skill-mix, lm-eval, or a file of prompts with answers; may be "
            "repeated, and all share the engines.",
        )
        @click.option("--model", "answering", multiple=True, metavar="MODEL", help=MODEL_TEXT)
        @click.option("--judge", metavar="DIR", help="Another judge than the run's own.")
        @click.option(
            "--sample",
            is_flag=True,
            help="Take the few items that ship with localism where nothing is staged, as a "
            "rehearsal does by itself.",
        )
        @click.option(
            "--limit", type=click.IntRange(1), metavar="N", help="Only the first N items of each."
        )
        @click.option(
            "--allow-unsandboxed-code",
            "unsandboxed",
            is_flag=True,
            help="lm-eval: run HumanEval's programs even where no sandbox can be made.",
        )
        @functools.wraps(command)
        def with_suites(
            names: tuple[str, ...],
            answering: tuple[str, ...],
            judge: str | None,
            sample: bool,
            limit: int | None,
            unsandboxed: bool,
            **own: Any,
        ) -> None:
            if click.get_current_context().invoked_subcommand:
                return
            if not names and (answering or judge or sample or limit):
                raise click.UsageError("--model, --judge, --sample and --limit belong to --suite")
            models = answering or ("picked", "base")
            wanted = SuiteOptions(names, models, judge, sample, limit, unsandboxed)
            command(**own, suites=wanted if names else None)

        return with_suites

    return decorate
