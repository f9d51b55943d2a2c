"""Options that several commands share."""

from pathlib import Path
from typing import Any

import click

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
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="How rows are printed.",
)


def run_options(command: Any) -> Any:
    """--run, --models, --set and --plain, for everything that works on a run."""
    plain = click.option("--plain", is_flag=True, help="Lines instead of a live display.")
    for option in (plain, overrides_option, models_option, run_option):
        command = option(command)
    return command
