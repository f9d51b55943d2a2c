"""localism variant and compare: training sets for ablations, and trainings side by side."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from localism.cli.options import budget_option, format_option, run_option
from localism.errors import OutOfTime, UsageError

if TYPE_CHECKING:
    from localism.config import Config
    from localism.variants.sets import Asked

KINDS = ("brevity", "junk", "longest", "random")


@click.command(
    epilog="\b\nExamples:\n  localism variant --kind brevity --share 0.2\n"
    "  localism variant --kind longest 1000 --from alpaca.json --run first"
)
@click.argument("n", required=False, type=click.IntRange(min=1))
@run_option
@click.option("--kind", type=click.Choice(KINDS), help="What is done with the examples.")
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), help="Of the answers, for brevity, junk."
)
@click.option("--k", type=click.IntRange(1, 20), help="Skills in each tuple.")
@click.option("--teacher", metavar="PATH", help="Folder of another teacher, or its URL with /v1.")
@click.option("--splits", type=click.IntRange(min=2), metavar="N", help="Disjoint parts.")
@click.option(
    "--from",
    "source",
    default="accepted",
    show_default=True,
    metavar="SET",
    help="What it is made from: a training set; for longest and random also a file.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), help="Of what is drawn, in place of the run's."
)
@click.option("--name", "set_name", metavar="NAME", help="Of the set; otherwise it says the kind.")
@click.option("--list", "is_list", is_flag=True, help="Show the training sets there are.")
@budget_option
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
def variant(name: str, is_list: bool, plain: bool, **asked: Any) -> None:
    """Make a training set beside the accepted examples, for an ablation.

    --kind brevity and junk replace a share of the answers by brief or careless ones, longest and
    random take N examples, --splits makes disjoint parts, --k and --teacher write the same tuples
    of skills anew. Then train, pick and evaluate take the set with --on; dev and test prompts stay
    the run's own.
    """
    from localism import recipe, run
    from localism.progress import Progress
    from localism.records import STAGES
    from localism.variants.regenerated import is_address
    from localism.variants.sets import make

    folder = run.existing_folder(name)
    if is_list:
        click.echo(_listed(folder), nl=False)
        return
    settled = recipe.settle_recipe(folder, None, ())
    sets = list(_sets(settled.config, **asked))
    teacher = asked["teacher"] or ""
    server = teacher if is_address(teacher) else None
    deadline = click.get_current_context().obj.get("deadline", math.inf)
    with (
        Progress(plain=plain) as progress,
        run.opened(folder, settled, progress, server) as context,
    ):
        context = replace(context, deadline=deadline)
        run.require(context, "a training set", STAGES[: STAGES.index("train")])
        for number, (one, maker) in enumerate(sets, 1):
            progress.begin(number, len(sets), "variant")
            try:
                progress.end(make(context, one, maker))
            except OutOfTime:
                left = f"{one.name} is not whole yet: the same command continues, and pays for no"
                raise OutOfTime(f"the hours are over; {left} reply again") from None
    names = " ".join(f"--on {one.name}" for one, _ in sets)
    click.echo(f"next: localism train --run {name} {names}")


@click.command(
    epilog="\b\nExamples:\n  localism compare\n"
    "  localism compare main brevity-20 second second:k-1 --run first --format csv"
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@run_option
@click.option(
    "--table",
    "number",
    type=click.Choice(["2", "3", "4", "6", "13", "14", "all"]),
    help="A table of the paper instead, filled by the run, or by the runs that are named.",
)
@format_option
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
def compare(
    names: tuple[str, ...], name: str, number: str | None, form: str, as_json: bool
) -> None:
    """Trainings and runs side by side on test, each against the first.

    NAME: a training of the run, another run, or RUN:TRAINING; without one, all of the run. The
    difference is in points of win rate with its 95% interval: paired by prompt where both were
    judged on the same ones, by tuple of skills where they share those, and else unpaired.
    """
    from localism import compare, run, tables

    form = "json" if as_json else form
    if number:
        _paper_tables(names or (name,), number, form)
        return
    table = compare.compare(names, run.existing_folder(name), run.existing_folder)
    if form in ("csv", "json"):
        click.echo(tables.render(table, form), nl=False)
        return
    table, explanation = compare.narrow(table)
    click.echo(tables.render(table, form, tables.terminal_width(), prose_lines=2))
    click.echo(tables.filled(explanation))


def _paper_tables(runs: Sequence[str], number: str, form: str) -> None:
    """Say what the runs have for one of the paper's tables, or for all of them."""
    import json

    from localism import compare, run, tables

    if form == "csv" and number == "all":
        raise UsageError(
            "CSV holds one table", where="--table all --format csv", fix="name one of the tables"
        )
    reads = [(name, compare.reading(run.existing_folder(name))) for name in runs]
    found = compare.paper_tables(reads, () if number == "all" else (number,))
    if form == "json":
        facts = {f"table {table.number}": rows.as_dicts() for table, rows in found}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo("nothing differs here yet: localism variant makes training sets to compare")
    shown: set[str] = set()
    for table, rows in found:
        if form != "csv":
            click.echo(
                f"{'### ' * (form == 'markdown')}{table.title} (paper, table {table.number})\n"
            )
            rows = compare.condensed(rows)
            shown |= {*rows.columns}
        if rows.rows:
            click.echo(tables.render(rows, form, tables.terminal_width(), prose_lines=2))
        else:
            click.echo("no training for it has been measured\n")
    if found and form != "csv":
        click.echo(tables.filled(compare.legend(shown)))


def _listed(folder: Path) -> str:
    from localism import reader, tables

    table = reader.read(
        folder,
        """
        SELECT set_name, kind, source, settings, planned,
               count(*) FILTER (e.status = 'accepted') AS examples,
               count(*) FILTER (e.status = 'accepted' AND e.changed) AS changed
        FROM training_set JOIN set_example e USING (set_name) GROUP BY ALL ORDER BY set_name
        """,
    )
    if not table.rows:
        return "no training set beside accepted\n"
    return tables.render(table, "table", tables.terminal_width(), prose_lines=2)


def _sets(
    config: "Config",
    n: int | None,
    kind: str | None,
    share: float | None,
    k: int | None,
    teacher: str | None,
    splits: int | None,
    source: str,
    seed: int | None,
    set_name: str | None,
) -> Iterator[tuple["Asked", Callable[..., Any]]]:
    """The sets that the options ask for and what makes them; UsageError if they do not agree."""
    from localism.variants.poor import poor
    from localism.variants.regenerated import check_teacher, regenerated
    from localism.variants.sets import Asked
    from localism.variants.subsets import longest, random, split

    chosen = [bool(kind), bool(splits), bool(k or teacher)]
    if sum(chosen) != 1:
        raise UsageError(
            "say what the set is to be" if not any(chosen) else "these ask for different sets",
            where="--kind, --splits, or --k and --teacher",
            fix="one of them a call; --k and --teacher may stand together",
        )
    for option, value, kinds in (("--share", share, KINDS[:2]), ("N", n, KINDS[2:])):
        if (value is not None) != (kind in kinds):
            raise UsageError(
                f"{' and '.join(kinds)} want {option}, and nothing else does",
                where=f"{option}, --kind {kind}" if kind else option,
                fix="for instance --kind brevity --share 0.2, or --kind random 1000",
            )
    settings: dict[str, Any] = {"seed": config.seed if seed is None else seed}
    prefix = "" if source == "accepted" else f"{Path(source).name.partition('.')[0]}-"

    def named(default: str) -> str:
        return set_name or prefix + default

    if kind in ("brevity", "junk"):
        assert share is not None
        asked = Asked(named(f"{kind}-{100 * share:g}"), kind, source, {**settings, "share": share})
        yield asked, poor
    elif kind in ("longest", "random"):
        drawn = {} if kind == "longest" else settings
        asked = Asked(named(f"{kind}-{n}"), kind, source, {**drawn, "n": n})
        yield asked, longest if kind == "longest" else random
    elif splits:
        for number in range(1, splits + 1):
            part = {**settings, "parts": splits, "number": number}
            yield Asked(f"{named('split')}-{number}-of-{splits}", "split", source, part), split
    else:
        settings |= {"k": k} if k else {}
        settings |= {"teacher": check_teacher(teacher)} if teacher else {}
        words = [f"teacher-{_short(teacher)}"] if teacher else []
        words += [f"k-{k}"] if k else []
        whose = "teacher" if teacher else "k"
        yield Asked(named("-".join(words)), whose, source, settings), regenerated


def _short(teacher: str) -> str:
    """The last part of a folder, or host and port of a URL, as part of a name."""
    last = urlsplit(teacher).netloc or Path(teacher).name
    return re.sub(r"[^A-Za-z0-9.]+", "-", last)
