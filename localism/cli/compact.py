"""The command compact: the corpus copied without the space that DuckDB keeps free in it."""

import json

import click

from localism.cli.options import run_option


@click.command(epilog="\b\nExamples:\n  localism compact\n  localism compact --run first --json")
@run_option
@click.option("--json", "as_json", is_flag=True, help="What came of it, as one JSON object.")
def compact(name: str, as_json: bool) -> None:
    """Make a run's corpus smaller: DuckDB keeps what was freed. Every row stays.

    The corpus is copied, every table of the copy compared with its own, and the copy put in its
    place. Needs as much room as the corpus takes, and a run that nothing works on.
    """
    from localism import run
    from localism.compact import compact

    def say(line: str) -> None:
        click.echo(line, err=True)

    done = compact(run.existing_folder(name), say)
    if as_json:
        click.echo(json.dumps(done._asdict()))
        return
    less = 100 * (1 - done.after / done.before)
    click.echo(
        f"{done.before:,} bytes before, {done.after:,} after ({less:.0f}% less): "
        f"{done.rows:,} rows of {done.tables} tables, each as it was"
    )
