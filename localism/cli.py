"""The command line: parse, call, and turn errors into three lines and an exit code."""

import functools
import json
import math
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from localism import __version__
from localism.cli_ablations import compare, variant
from localism.cli_doctor import doctor
from localism.cli_evaluate import stage as stage_suite
from localism.cli_export import export, licences
from localism.cli_judge import judge
from localism.cli_options import (
    TrialOptions,
    run_option,
    run_options,
    suite_options,
    trial_options,
)
from localism.cli_pack import pack, unpack, verify
from localism.cli_plan import plan
from localism.cli_prompts import prompts
from localism.cli_skills import skills
from localism.cli_slurm import slurm
from localism.cli_sql import sql, ui
from localism.cli_train_worker import train_worker
from localism.cli_winrate import winrate
from localism.errors import LocalismError, OutOfTime, UsageError, of_the_system
from localism.records import STAGES, SuiteOptions

WATCH_SECONDS = 3.0
SECTIONS = {
    "Whole pipeline": ("run-all", "doctor", "plan", "init", "status", "fork"),
    "One stage, in pipeline order": STAGES,
    "Several machines": ("slurm", "train-worker"),
    "Ablations": ("variant", "compare"),
    "Look": ("skills", "prompts", "sql", "ui", "why", "winrate", "judge"),
    "Hand on": ("export", "licences"),
    "Into an air gap": ("pack", "verify", "unpack"),
}


class Pipeline(click.Group):
    """Commands in pipeline order, grouped, instead of by alphabet."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                commands = [(name, self.commands[name]) for name in names]
                formatter.write_dl(
                    [(name, command.get_short_help_str(90)) for name, command in commands]
                )


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


# Options that say in a word what --set says with a key.
_EXTRACT = ("extract.method", "METHOD", "sda asks the teacher itself, sdd labels seeds, or both.")
_DOMAIN = ("extract.domain", "TEXT", 'Keep to a domain, for instance "safety".')
SHORTCUTS = {
    "run-all": {"--extract": _EXTRACT, "--domain": _DOMAIN},
    "extract": {"--method": _EXTRACT, "--domain": _DOMAIN},
    "mix": {
        "--n": ("mix.train", "N", "Training examples; more than planned before extends the plan."),
        "--k": ("mix.k", "N", "Skills in one example."),
        "--seed": ("mix.seed", "N", "Of the plan."),
        "--design": ("mix.design", "DESIGN", "balanced, or random as in the paper."),
    },
    "cluster": {
        "--method": ("cluster.method", "METHOD", "hdbscan, fast, cuml or auto."),
        "--noise": ("cluster.noise", "POLICY", "rare, absorb or assign-all."),
    },
    "pick": {  # without a value: it says false
        "--single-order": ("pick.both_orders", "", "Judge each pair once, as AlpacaEval does."),
    },
}


def shortcuts(name: str) -> Any:
    """The short options of a command, each an override of one key."""

    def decorate(command: Any) -> Any:
        for flag, (key, metavar, text) in reversed(SHORTCUTS.get(name, {}).items()):
            takes = {"metavar": metavar, "type": int if metavar == "N" else str}
            command = click.option(
                flag,
                expose_value=False,
                default=None,
                help=f"{text} Short for --set {key}={'...' if metavar else 'false'}",
                callback=functools.partial(_override, key),
                **(takes if metavar else {"is_flag": True, "flag_value": False, "type": bool}),
            )(command)
        return command

    return decorate


def _override(
    key: str, context: click.Context, option: click.Parameter, value: str | int | None
) -> None:
    if value is not None:
        override = f"{key}={json.dumps(value)}"
        context.obj.setdefault("overrides", []).append(override)
        typed = option.opts[0] if value is False else f"{option.opts[0]} {value}"
        context.obj.setdefault("typed", {})[f"--set {override}"] = typed


@contextmanager
def _as_typed() -> Iterator[None]:
    """An error names the short option, and not the --set that it stands for."""
    try:
        yield
    except LocalismError as wrong:
        for override, typed in click.get_current_context().obj.get("typed", {}).items():
            wrong.where = wrong.where.replace(override, typed)
        raise


@contextmanager
def _saying_what_is_left(folder: Path, stages: Sequence[str]) -> Iterator[None]:
    """The end of --budget-hours names what is done and what is left; the run is closed by then."""
    try:
        yield
    except OutOfTime as over:
        from localism import status

        raise OutOfTime(status.left(folder, stages, str(over))) from None


def _end_once(*_: Any) -> None:
    """Slurm's warning, as Ctrl-C; `timeout` and some schedulers send it twice in a moment."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _work(
    name: str,
    models: Path | None,
    overrides: tuple[str, ...],
    plain: bool,
    stages: tuple[str, ...] | None,
    top_up: bool = False,
    sets: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (),
    trial: TrialOptions | None = None,
    suites: SuiteOptions | None = None,
    is_examined: bool = False,
) -> None:
    """Do stages of a run (None: all of them), or top up its mixes, and say what came of it.

    With sets or seeds, the one stage is done for the training of each set with each seed. With
    suites, models are evaluated on benchmarks and no stage is done. is_examined: the doctor looks
    first.
    """
    from localism import recipe, run
    from localism.progress import Progress
    from localism.training.sets import ACCEPTED, training_of

    signal.signal(signal.SIGTERM, _end_once)
    # Only the first stage and the whole pipeline begin a run: elsewhere a new name is a slip.
    begins = stages is None or stages[0] == STAGES[0]
    folder = run.folder_of(name) if begins or models else run.existing_folder(name)
    short = click.get_current_context().obj.get("overrides", [])
    with _as_typed():
        config = recipe.settle_recipe(folder, models, (*overrides, *short))
    deadline = click.get_current_context().obj.get("deadline", math.inf)
    wanted = stages or run.STAGES
    with _saying_what_is_left(folder, wanted), Progress(plain=plain) as progress:
        progress.say(run.headline(folder, config))
        if is_examined:
            from localism.doctor.examine import before_a_run

            before_a_run(config, folder, progress)
        with run.opened(folder, config, progress) as context:
            context = replace(context, deadline=deadline)
            if trial:
                from localism.stages import generate_trial

                run.require(context, "a trial of generate", run.STAGES[:3])
                facts = generate_trial.calibrate(context, trial.seconds, trial.watts)
                click.echo(json.dumps(facts) if trial.as_json else generate_trial.render(facts))
                return
            if top_up:
                progress.say(run.top_up(context))
                return
            if suites:
                outcome = run.run_suites(context, suites)
            elif stages and (sets or seeds):
                trainings = [
                    training_of(config, one, seed)
                    for one in sets or (ACCEPTED,)
                    for seed in seeds or (None,)
                ]
                outcome = run.run_trainings(context, stages[0], trainings)
            else:
                outcome = run.run_stages(context, wanted)
        if not outcome.worked:
            progress.say("nothing to do: done earlier")
        if stages is None:
            click.echo(folder / "report.html")


@cli.command(
    "run-all",
    epilog="\b\nExamples:\n  localism run-all\n"
    "  localism run-all --run first --models models.toml --set mix.train=1000",
)
@shortcuts("run-all")
@run_options
@click.option("--until", type=click.Choice(STAGES), metavar="STAGE", help="End behind this stage.")
@click.option("--no-doctor", is_flag=True, help="Begin although the doctor finds faults.")
def run_all(
    name: str,
    models: Path | None,
    overrides: tuple[str, ...],
    plain: bool,
    until: str | None,
    no_doctor: bool,
) -> None:
    """All nine stages in order, skipping what is done. Call it again to continue a run."""
    stages = STAGES[: STAGES.index(until) + 1] if until else None
    _work(name, models, overrides, plain, stages, is_examined=not no_doctor)


STAGE_HELP = {
    "extract": "Ask the teacher for topics, skills and query types; label seed examples.",
    "cluster": "Merge labels into skills and group them: embeddings and HDBSCAN.",
    "mix": "Plan the examples: k skills, a query type and a split for each.",
    "generate": "Let the teacher draft, critique and refine an example for each mix.",
    "curate": "Accept or reject each example; every gate's verdict is kept.",
    "train": "Fine-tune the student on the accepted examples; one checkpoint an epoch.",
    "pick": "Choose the checkpoint with the best length-controlled win rate on dev.",
    "evaluate": "Measure the picked checkpoint and the base on test, or on benchmarks (--suite).",
    "report": "Write report.html and export the data set.",
}


def top_up_option(stage: str) -> Any:
    """--top-up, for mix alone."""
    text = "Plan more mixes for the skills that curation left short."
    option = click.option("--top-up", is_flag=True, help=text)
    return option if stage == "mix" else lambda command: command


SEED = click.IntRange(0, 2**32 - 1)


def training_options(stage: str) -> Any:
    """--on and --seed, for the stages that work on a training."""
    if stage not in ("train", "pick", "evaluate"):
        return lambda command: command

    def decorate(command: Any) -> Any:
        on = "A training set beside the accepted examples (see localism variant); may be repeated."
        seed = "Of the training, in place of the run's; may be repeated."
        command = click.option("--seed", "seeds", multiple=True, type=SEED, help=seed)(command)
        return click.option("--on", "sets", multiple=True, metavar="SET", help=on)(command)

    return decorate


SECOND_EXAMPLE = {"evaluate": "localism evaluate --suite alpacaeval --suite mt-bench"}


def _add_stage(stage: str, text: str) -> None:
    kind = cli.group if stage == "evaluate" else cli.command
    more: dict[str, Any] = {"invoke_without_command": True} if stage == "evaluate" else {}

    @kind(
        stage,
        help=text,
        epilog=f"\b\nExamples:\n  localism {stage}\n  "
        + SECOND_EXAMPLE.get(stage, f"localism {stage} --run first --plain"),
        **more,
    )
    @shortcuts(stage)
    @run_options
    @top_up_option(stage)
    @training_options(stage)
    @trial_options(stage)
    @suite_options(stage)
    def command(
        name: str,
        models: Path | None,
        overrides: tuple[str, ...],
        plain: bool,
        **own: Any,
    ) -> None:
        _work(name, models, overrides, plain, (stage,), **own)


for _stage, _text in STAGE_HELP.items():
    _add_stage(_stage, _text)


@cli.command(
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
        source = Path(__file__).parent / "templates" / "models-h100.toml"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(source.read_text())
    click.echo(f"wrote {target}; next: edit it, then localism run-all --run NAME --models {target}")


@cli.command(epilog="\b\nExamples:\n  localism status\n  localism status --run first --json")
@run_option
@click.option("--json", "as_json", is_flag=True, help="Facts as one JSON object.")
@click.option("--watch", is_flag=True, help="Look again every few seconds until all is done.")
def status(name: str, as_json: bool, watch: bool) -> None:
    """Which stages are done, the books and the tokens; also while the run is working."""
    from localism import run, status

    folder = run.existing_folder(name)
    while True:
        facts = status.facts(folder, run.STAGES)
        if watch:
            click.clear()
        click.echo(json.dumps(facts, indent=2) if as_json else status.render(facts))
        if not watch or all(stage["state"] == "done" for stage in facts["stages"]):
            return
        time.sleep(WATCH_SECONDS)


@cli.command(
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
    from localism import run

    carried, following = run.fork(old, new, models, overrides)
    click.echo(f"{carried:,} model calls carried over; next: {following}")


@cli.command(epilog="\b\nExamples:\n  localism why 1f0c2a9be77d4e01\n  localism why 12 --run first")
@click.argument("example")
@run_option
def why(example: str, name: str) -> None:
    """Everything that made one example (a mix_id or its ordinal): skills, turns, verdicts."""
    from localism import run, why

    click.echo(why.explain(run.existing_folder(name), example))


cli.commands["evaluate"].add_command(stage_suite)  # type: ignore[attr-defined]
cli.add_command(winrate)
cli.add_command(skills)
cli.add_command(prompts)
cli.add_command(variant)
cli.add_command(compare)
cli.add_command(slurm)
cli.add_command(train_worker)
cli.add_command(sql)
cli.add_command(ui)
cli.add_command(judge)
cli.add_command(export)
cli.add_command(licences)
cli.add_command(doctor)
cli.add_command(plan)
cli.add_command(pack)
cli.add_command(verify)
cli.add_command(unpack)


def _in_three_lines(wrong: click.ClickException) -> UsageError:
    """What click says of a command line, as every other mistake is told."""
    context = getattr(wrong, "ctx", None)
    command = context.command_path if context else "localism"
    problem = wrong.format_message().strip().rstrip(".")
    problem = problem[:1].lower() + problem[1:]
    return UsageError(" ".join(problem.split()), where=command, fix=f"{command} --help")


def main() -> None:
    """Entry point: exit 2 usage, 3 config or models, 4 machine, 5 stage failed, 6 out of time,
    130 interrupted."""
    try:
        cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):  # click turns Ctrl-C into Abort
        click.echo("interrupted; what was finished is kept, the same command continues", err=True)
        sys.exit(130)
    except OutOfTime as over:
        click.echo(str(over), err=True)
        sys.exit(over.exit_code)
    except OSError as refused:
        explained = of_the_system(refused)
        if explained is None or "--debug" in sys.argv:
            raise
        click.echo(str(explained), err=True)
        sys.exit(explained.exit_code)
    except click.exceptions.NoArgsIsHelpError as alone:
        alone.show()
        sys.exit(2)
    except click.ClickException as wrong:
        click.echo(str(_in_three_lines(wrong)), err=True)
        sys.exit(2)
    except LocalismError as wrong:
        if "--debug" in sys.argv:
            raise
        click.echo(str(wrong), err=True)
        sys.exit(wrong.exit_code)
