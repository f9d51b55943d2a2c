"""A run as a whole: init, status, fork, why."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from localism.cli.options import run_option
from localism.errors import LocalismError, UsageError

WATCH_SECONDS = 3.0
# The answers are counted by the process that works: with millions of turns they take a second.
REST = 10


@click.command(
    epilog="\b\nExamples:\n  localism init --for laptop\n"
    "  localism init --for h100 --to runs/first.toml"
)
@click.option(
    "--for",
    "machine",
    type=click.Choice(["h100", "laptop"]),
    required=True,
    help="What the values are chosen for.",
)
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path),
    default=Path("models.toml"),
    show_default=True,
    help="File to write; an existing one is left alone.",
)
def init(machine: str, target: Path) -> None:
    """Write a commented models.toml to edit."""
    from localism.prompting.packs import packaged

    if target.exists():
        raise UsageError(
            "the file exists already",
            where=str(target),
            fix="edit it, remove it, or name another with --to",
        )
    source = packaged("models.toml")
    if machine == "h100":
        source = Path(__file__).parents[1] / "templates" / "models-h100.toml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text())
    click.echo(f"wrote {target}; next: edit it, then localism run-all --run NAME --models {target}")


@click.command(epilog="\b\nExamples:\n  localism status\n  localism status --run first --json")
@run_option
@click.option("--json", "as_json", is_flag=True, help="Facts as one JSON object.")
@click.option("--watch", is_flag=True, help="Look again every few seconds until all is done.")
def status(name: str, as_json: bool, watch: bool) -> None:
    """Which stages are done, the books and the tokens; also while the run is working."""
    from localism import run, status

    folder = run.existing_folder(name)

    # The last row of a terminal is the cursor's.
    has_height = watch and sys.stdout.isatty()

    def look() -> tuple[str, bool]:
        facts = status.facts(folder, run.STAGES)
        is_done = all(stage["state"] == "done" for stage in facts["stages"])
        height = shutil.get_terminal_size().lines - 1 if has_height else None
        screen = json.dumps(facts, indent=2) if as_json else status.render(facts, height=height)
        return screen, is_done

    if watch:
        _watch(look)
    else:
        click.echo(look()[0])


def _watch(look: Callable[[], tuple[str, bool]]) -> None:
    """Show it again and again until all is done, or Ctrl-C; a run that cannot be read now may be
    starting, ending, or compacted at this moment."""
    try:
        while True:
            began = time.monotonic()
            try:
                text, is_done = look()
            except LocalismError as wrong:
                text, is_done = f"{wrong}\n\nlooking again", False
            click.clear()
            click.echo(text)
            if is_done:
                return
            time.sleep(max(WATCH_SECONDS, REST * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return


@click.command(
    epilog="\b\nExamples:\n  localism fork default longer --set train.epochs=10\n"
    "  localism fork first second --models models.toml"
)
@click.argument("old")
@click.argument("new")
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Another models.toml; without it the one that the old run was started with.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value.")
def fork(old: str, new: str, models: Path | None, overrides: tuple[str, ...]) -> None:
    """Start run NEW from run OLD with a changed recipe, reusing its model calls."""
    from localism import forking, tables

    carried, following = forking.fork(old, new, models, overrides)
    click.echo(f"{tables.number_of(carried, 'model call')} carried over; next: {following}")


@click.command(
    epilog="\b\nExamples:\n  localism why 1f0c2a9be77d4e01\n  localism why 12 --run first"
)
@click.argument("example")
@run_option
def why(example: str, name: str) -> None:
    """Everything that made one example (a mix_id or its ordinal): skills, turns, verdicts."""
    from localism import run, why

    click.echo(why.explain(run.existing_folder(name), example))
