"""run-all and the nine stages."""

import functools
import json
import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from localism.cli.options import Group, TrialOptions, run_options, suite_options, trial_options
from localism.errors import LocalismError, OutOfTime
from localism.records import STAGES, SuiteOptions

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


@contextmanager
def _placed(folder: Path) -> Iterator[None]:
    """The run's folder made, before anything is said; a new one goes if nothing came into it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except LocalismError:
        with suppress(OSError):
            if is_new:
                folder.rmdir()
        raise


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
        asked = recipe.settle_recipe(folder, models, (*overrides, *short))
    config = asked.config
    deadline = click.get_current_context().obj.get("deadline", math.inf)
    wanted = stages or run.STAGES
    with (
        _placed(folder),
        _saying_what_is_left(folder, wanted),
        Progress(plain=plain) as progress,
    ):
        progress.say(run.headline(folder, config))
        if is_examined:
            from localism.doctor.examine import before_a_run

            before_a_run(asked, folder, progress)
        with run.opened(folder, asked, progress) as context:
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
            elif len(wanted) > 1:
                outcome = _whole_run(context, wanted)
            else:
                outcome = run.run_stages(context, wanted)
        if not outcome.worked:
            progress.say("nothing to do: done earlier")
        if stages is None:
            click.echo(folder / "report.html")


def _whole_run(context: Any, stages: Sequence[str]) -> Any:
    """Do the stages of run-all; what they should take is noted before, and compared at the end."""
    from localism import run
    from localism.planning import noted

    noted.note(context)
    outcome = run.run_stages(context, stages)
    if outcome.worked and stages[-1] == STAGES[-1] and (line := noted.check(context)):
        context.progress.say(line)
    return outcome


@click.command(
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


def stage_command(stage: str) -> click.Command:
    """The command that does one stage; evaluate has commands of its own below it."""
    kind: Any = click.group if stage == "evaluate" else click.command
    more: dict[str, Any] = (
        {"cls": Group, "invoke_without_command": True} if stage == "evaluate" else {}
    )

    @kind(
        stage,
        help=STAGE_HELP[stage],
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

    return command
