"""The command slurm: scripts that run the whole pipeline in jobs, as often as it takes."""

import math
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from localism.cli.options import Positive, models_option, run_option

# Before the end of a job localism begins nothing new (what is under way may take five minutes),
# and Slurm warns, should that not have been enough.
LAST_MINUTES, WARNING_SECONDS = 15, 300


def _seeds(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    ends = [(int(a), int(b or a)) for a, b in re.findall(r"(\d+)(?:-(\d+))?", value.split("%")[0])]
    is_list = re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*(%\d+)?", value)
    if not is_list or any(first > last for first, last in ends):
        raise click.BadParameter(f"{value!r} is no list of seeds, for instance 0-3 or 0,7,9%2")
    return value


def _partition(context: click.Context, option: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[\w.,+-]+", value):
        raise click.BadParameter(f"{value!r} is no name of a partition")
    return value


@click.command(
    epilog="\b\nExamples:\n  localism slurm --partition h100 --gpus 8 --models models.toml\n"
    "  localism slurm --partition h100 --gpus 8 --hours 24 --seeds 0-3 --to seeds.sh"
)
@run_option
@models_option
@click.option(
    "--partition", required=True, metavar="NAME", callback=_partition, help="Of your cluster."
)
@click.option(
    "--nodes", type=click.IntRange(1), help="Machines; by default what models.toml asks for."
)
@click.option(
    "--gpus", type=click.IntRange(0), default=8, show_default=True, help="Of each machine."
)
@click.option(
    "--hours", type=Positive(), default=24.0, show_default=True, metavar="H",
    help="Longest time of a job; the run goes on in the next one.",
)  # fmt: skip
@click.option(
    "--seeds", metavar="LIST", callback=_seeds,
    help="An array of runs NAME-SEED, one a seed, for instance 0-3.",
)  # fmt: skip
@click.option(
    "--to", "target", type=click.Path(path_type=Path), default=Path("localism.sh"),
    show_default=True, help="File to write; an existing one is left alone.",
)  # fmt: skip
@click.argument("more", nargs=-1)
def slurm(
    name: str,
    models: Path | None,
    partition: str,
    nodes: int | None,
    gpus: int,
    hours: float,
    seeds: str | None,
    target: Path,
    more: tuple[str, ...],
) -> None:
    """Write a batch script for run-all; MORE goes to run-all, behind a double hyphen."""
    from localism import recipe, run
    from localism.errors import UsageError

    run.folder_of(name)
    _check_more(more)
    if target.exists():
        raise UsageError(
            "the file exists already",
            where=str(target),
            fix="edit it, remove it, or name another with --to",
        )
    if hours * 60 <= 2 * LAST_MINUTES:
        raise UsageError(
            "so short a job does next to nothing",
            where=f"--hours {hours:g}",
            fix=f"more than half an hour: the last {LAST_MINUTES} minutes are for ending well",
        )
    path = (models or recipe.default_models()).resolve()
    machines = _machines(path, nodes)
    text = _rendered(name, path, partition, machines, gpus, hours, seeds, target.name, more)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    first = f"{name}-{re.findall(r'[0-9]+', seeds)[0]}" if seeds else name
    click.echo(
        f"wrote {target}; next: sbatch {shlex.quote(str(target))}, and "
        f"localism status --run {shlex.quote(first)} --watch"
    )


def _check_more(more: tuple[str, ...]) -> None:
    """What goes to run-all must be its own options, and none that the script gives itself."""
    from localism.cli.stages import run_all
    from localism.errors import UsageError

    run_all.make_context(
        "localism run-all", [*more], obj={}
    )  # raises what click says of wrong options
    words = {word.partition("=")[0] for word in more}
    if twice := sorted(words & {"--run", "--models", "--budget-hours", "--plain"}):
        raise UsageError(
            f"the script gives {', '.join(twice)} itself",
            where=f"-- {' '.join(more)}",
            fix="before the double hyphen: --run, --models, --hours",
        )


def _machines(models: Path, given: int | None) -> int:
    """How many machines the job needs: those of its largest engine, or of its training."""
    from localism import models_toml
    from localism.errors import UsageError

    config = models_toml.validate(models_toml.read_table(models), str(models))
    wanted = {
        "[teacher].nodes": config.teacher.nodes,
        "[judge].nodes": config.served("judge").nodes,
        "[train].nodes": config.train.nodes or 1,
    }
    key, most = max(wanted.items(), key=lambda item: item[1])
    if given is not None and given < most:
        raise UsageError(
            f"{key} is {most}, and the job is to have {given} machines",
            where=f"--nodes {given}, {models}",
            fix=f"--nodes {most}, or {key} = {given}",
        )
    return given or most


def _rendered(
    name: str,
    models: Path,
    partition: str,
    nodes: int,
    gpus: int,
    hours: float,
    seeds: str | None,
    script: str,
    more: tuple[str, ...],
) -> str:
    import jinja2

    from localism import __version__

    minutes = math.floor(hours * 60)
    job = "localism-" + re.sub(r"[^\w.-]", "-", Path(name).name)
    values: dict[str, Any] = {
        "title": f"localism run-all, run {name}" + (f", seeds {seeds}" if seeds else ""),
        "version": __version__,
        "name": script,
        "job": job,
        "partition": partition,
        "nodes": nodes,
        "gpus": gpus,
        "time": f"{minutes // 60}:{minutes % 60:02d}:00",
        "array": seeds,
        "warning": WARNING_SECONDS,
        "log": f"{job}-%{'A_%a' if seeds else 'j'}.log",
        "folder": shlex.quote(str(Path.cwd())),
        "run": shlex.quote(name),
        "localism": f"{shlex.quote(sys.executable)} -m localism",
        "models": shlex.quote(str(models)),
        "budget": f"{(minutes - LAST_MINUTES) / 60:.2f}",
        "more": "".join(f" {shlex.quote(word)}" for word in more),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("localism", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("slurm.sh").render(**values)
