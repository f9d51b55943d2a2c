"""The command plan: what a run will take, before and while it works."""

import json
import os
from pathlib import Path

import click

from localism.cli.options import Positive, models_option, overrides_option, run_option


@click.command(
    epilog="\b\nExamples:\n  localism plan --models models.toml --from first\n"
    "  localism plan --run first --watts 5600 --json"
)
@run_option
@models_option
@overrides_option
@click.option("--from", "like", metavar="RUN", help="An earlier run to scale from.")
@click.option("--watts", type=Positive(), metavar="N", help="Power to count kWh with.")
@click.option("--json", "as_json", is_flag=True, help="The plan as one JSON object.")
def plan(
    name: str,
    models: Path | None,
    overrides: tuple[str, ...],
    like: str | None,
    watts: float | None,
    as_json: bool,
) -> None:
    """Hours, GPU hours, tokens, disk and kWh of each stage, and what the figures rest on."""
    from localism import models_toml, offline, reader, recipe, run
    from localism.gpus import find_gpus
    from localism.planning import predict, seen, text

    folder = run.folder_of(name)
    own = None
    if (folder / recipe.RECIPE).exists():
        config = recipe.asked_recipe(folder, models, overrides).config
        own = seen.look(folder) if (folder / reader.CORPUS).exists() else None
    else:
        config = models_toml.load(models or recipe.default_models(), overrides)
    earlier = seen.look(run.existing_folder(like)) if like else None
    gpus = find_gpus(offline.child_environment(folder))
    machine = predict.Machine(gpus, len(os.sched_getaffinity(0)))
    rows = list(predict.rows(config, machine, own, earlier))
    found = text.facts(config, machine, rows, earlier or own, watts)
    click.echo(json.dumps(found, indent=2) if as_json else text.render(found), nl=as_json)
