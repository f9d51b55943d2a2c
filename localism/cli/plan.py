"""The command plan: what a run will take, before and while it works."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from localism.cli.options import (
    TRIAL_SECONDS,
    Positive,
    models_option,
    overrides_option,
    run_option,
    seconds_option,
)

if TYPE_CHECKING:
    from localism.planning.seen import Calibrated, Seen
    from localism.recipe import Recipe


@click.command(
    epilog="\b\nExamples:\n  localism plan --models models.toml --calibrate\n"
    "  localism plan --run first --from small --budget-hours 8 --json"
)
@run_option
@models_option
@overrides_option
@click.option("--from", "like", metavar="RUN", help="An earlier run to scale from.")
@click.option(
    "--calibrate",
    is_flag=True,
    help="Start the teacher and try the plan for a minute first; a run that has mixes keeps what "
    "that writes, any other is tried with made-up skills.",
)
@seconds_option
@click.option("--budget-hours", "budget", type=Positive(), metavar="H", help="How far these go.")
@click.option("--watts", type=Positive(), metavar="N", help="Power to count kWh with.")
@click.option("--json", "as_json", is_flag=True, help="The plan as one JSON object.")
def plan(
    name: str,
    models: Path | None,
    overrides: tuple[str, ...],
    like: str | None,
    calibrate: bool,
    seconds: float | None,
    budget: float | None,
    watts: float | None,
    as_json: bool,
) -> None:
    """Hours, GPU hours, tokens, disk and kWh of each stage, and what the figures rest on."""
    from localism import offline, recipe, run
    from localism.planning import noted, predict, seen, text

    if seconds and not calibrate:
        raise click.UsageError("--seconds belongs to --calibrate")
    folder, trial = run.folder_of(name), None
    earlier = seen.look(run.existing_folder(like)) if like else None
    asked = recipe.settle_recipe(folder, models, overrides)
    if calibrate and _has_mixes(folder):
        trial = _tried(asked, seconds or TRIAL_SECONDS, watts, folder)
    elif calibrate:
        trial = _tried(asked, seconds or TRIAL_SECONDS, watts)
    config = asked.config
    own = _own(folder)
    trial = trial or (own.calibrated if own else None)
    machine = noted.this_machine(offline.child_environment(folder))
    rows = list(predict.rows(config, machine, own, earlier, trial))
    power = machine.watts(watts, trial or (earlier.calibrated if earlier else None))
    found = text.facts(config, machine, rows, earlier or own, power, budget)
    click.echo(json.dumps(found, indent=2) if as_json else text.render(found), nl=as_json)


def _own(folder: Path) -> "Seen | None":
    """The run as far as it is."""
    from localism import reader, recipe
    from localism.planning import seen

    has_begun = (folder / recipe.RECIPE).exists() and (folder / reader.CORPUS).exists()
    return seen.look(folder) if has_begun else None


def _has_mixes(folder: Path) -> bool:
    from localism import reader

    if not (folder / reader.CORPUS).exists():
        return False
    return bool(reader.read(folder, "SELECT mix_id FROM mix LIMIT 1").rows)


def _tried(
    asked: "Recipe", seconds: float, watts: float | None, run_folder: Path | None = None
) -> "Calibrated | None":
    """A trial of stage generate: of a run's own mixes, or of made-up ones in a throwaway folder.

    The folder stays where something fails in it, for its logs.
    """
    from localism import run
    from localism.planning import seen
    from localism.progress import Progress
    from localism.stages import generate_trial

    folder = run_folder or Path(tempfile.mkdtemp(prefix="localism-trial-"))
    with Progress() as progress:
        if run_folder is None:
            progress.say("no mixes yet: made-up skills are tried, and nothing of it is kept")
        with run.opened(folder, asked, progress) as context:
            if run_folder is None:
                generate_trial.made_up_plan(context)
            facts = generate_trial.calibrate(context, seconds, watts)
    if run_folder is None:
        shutil.rmtree(folder)
    return seen.calibrated(asked.config, facts)
