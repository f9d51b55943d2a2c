"""localism worker: this machine helps a run that works on another."""

import time

import click

from localism.cli.options import run_option


@click.command(
    "worker",
    epilog="\b\nExamples:\n  localism worker --run /shared/runs/first\n"
    "  localism worker --run /shared/runs/first > worker.log &",
)
@run_option
@click.option("--call", hidden=True, help="Take part in this one thing alone; Slurm's steps do.")
def worker(name: str, call: str | None) -> None:
    """Help a run that works on another machine, until it is interrupted.

    For nodes above 1 in [train], [teacher] or [judge] without Slurm: once on each machine but the
    run's own, at any time. The run must be on a file system that all of them share, and the models
    at the same paths.
    """
    from localism import offline, run
    from localism import worker as helping

    folder = run.existing_folder(name).resolve()
    offline.close_air_gap(folder, child="worker")

    def say(line: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {line}")

    if call:
        helping.serve_once(folder, call, say)
    else:
        helping.serve(folder, say)
