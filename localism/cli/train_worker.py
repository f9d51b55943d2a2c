"""localism train-worker: this machine helps with the trainings of a run that works on another."""

import time

import click

from localism.cli.options import run_option


@click.command(
    "train-worker",
    epilog="\b\nExamples:\n  localism train-worker --run /shared/runs/first\n"
    "  localism train-worker --run /shared/runs/first > worker.log &",
)
@run_option
@click.option("--call", hidden=True, help="Take part in this training alone; Slurm's steps do.")
def train_worker(name: str, call: str | None) -> None:
    """Help a run that works on another machine with its trainings, until it is interrupted.

    For [train].nodes above 1 without Slurm: once on each machine but the run's own, at any time
    before that trains. The run must be on a file system that all of them share, and the models at
    the same paths.
    """
    from localism import offline, run
    from localism.training import worker

    folder = run.existing_folder(name).resolve()
    offline.close_air_gap(folder, child="train-worker")

    def say(line: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {line}")

    if call:
        worker.serve_once(folder, call, say)
    else:
        worker.serve(folder, say)
