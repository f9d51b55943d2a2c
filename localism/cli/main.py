"""The command line put together; errors become three lines and an exit code."""

import os
import sys
from collections.abc import Mapping, Sequence

import click

from localism import __version__
from localism.cli.ablations import compare, variant
from localism.cli.compact import compact
from localism.cli.doctor import doctor
from localism.cli.evaluate import stage as stage_suite
from localism.cli.export import export, licences
from localism.cli.judge import judge
from localism.cli.options import Group
from localism.cli.pack import pack, unpack, verify
from localism.cli.plan import plan
from localism.cli.prompts import prompts
from localism.cli.runs import fork, init, status, why
from localism.cli.skills import skills
from localism.cli.slurm import slurm
from localism.cli.sql import sql, ui
from localism.cli.stages import run_all, stage_command
from localism.cli.winrate import winrate
from localism.cli.worker import worker
from localism.errors import LocalismError, OutOfTime, UsageError, of_the_system
from localism.records import STAGES

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Whole pipeline": (run_all, doctor, plan, init, status, fork, compact),
    "One stage, in pipeline order": tuple(stage_command(stage) for stage in STAGES),
    "Several machines": (slurm, worker),
    "Ablations": (variant, compare),
    "Look": (skills, prompts, sql, ui, why, winrate, judge),
    "Hand on": (export, licences),
    "Into an air gap": (pack, verify, unpack),
}


class Pipeline(Group):
    """Commands in pipeline order, grouped, instead of by alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [str(command.name) for commands in SECTIONS.values() for command in commands]

    def sections(self) -> Mapping[str, Sequence[click.Command]]:
        return SECTIONS


@click.group(cls=Pipeline, context_settings={"max_content_width": 100})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Make training data with a local model, fine-tune a smaller one on it, and measure
    whether it got better. Nothing leaves this machine.

    \b
    Start here:
        localism run-all                     minutes, on a CPU, with the built-in tiny models
        localism init --for h100 --to first.toml
        localism run-all --run first --models first.toml    on your own weights
    """
    context.obj = {"debug": debug}


for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)
cli.commands["evaluate"].add_command(stage_suite)  # type: ignore[attr-defined]


def _in_three_lines(wrong: click.ClickException) -> UsageError:
    """What click says of a command line, as every other mistake is told."""
    context = getattr(wrong, "ctx", None)
    command = context.command_path if context else "localism"
    problem = wrong.format_message().strip().rstrip(".")
    problem = problem[:1].lower() + problem[1:]
    return UsageError(" ".join(problem.split()), where=command, fix=f"{command} --help")


def _tell(text: str) -> None:
    """To stderr; on a full disk, or without a terminal any more, there is nobody to tell."""
    try:
        click.echo(text, err=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # else Python ends with 120 for it


def main() -> None:
    """Entry point: exit 2 usage, 3 config or models, 4 machine, 5 stage failed, 6 out of time,
    130 interrupted."""
    try:
        cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):  # click turns Ctrl-C into Abort
        _tell("interrupted; what was finished is kept, the same command continues")
        sys.exit(130)
    except OutOfTime as over:
        _tell(str(over))
        sys.exit(over.exit_code)
    except OSError as refused:
        explained = of_the_system(refused)
        if explained is None or "--debug" in sys.argv:
            raise
        _tell(str(explained))
        sys.exit(explained.exit_code)
    except click.exceptions.NoArgsIsHelpError as alone:
        alone.show()
        sys.exit(2)
    except click.ClickException as wrong:
        _tell(str(_in_three_lines(wrong)))
        sys.exit(2)
    except LocalismError as wrong:
        if "--debug" in sys.argv:
            raise
        _tell(str(wrong))
        sys.exit(wrong.exit_code)
