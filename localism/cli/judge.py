"""localism judge: how far a judge can be trusted, and two judges side by side."""

import json
import math
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localism.cli.options import Group, budget_option, run_option

if TYPE_CHECKING:
    from localism.reader import Table

CHECKS = (
    "agreement", "position_bias", "length_slope", "self_preference", "retest", "injection",
    "second_judge",
)  # fmt: skip
"""In the order of the table."""


@click.group(
    cls=Group,
    epilog="\b\nExamples:\n  localism judge check --run first --preferences people.jsonl\n"
    "  localism judge compare teacher other-judge --run first",
)
def judge() -> None:
    """How far a judge can be trusted: checked by itself, and beside another one."""


@judge.command(
    epilog="\b\nExamples:\n  localism judge check --run first --preferences people.jsonl\n"
    "  localism judge check --run first --judge /models/other-judge --only second_judge"
)
@run_option
@click.option("--judge", "path", metavar="DIR", help="Another judge than the run's own.")
@click.option(
    "--preferences",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What people preferred: JSONL, JSON or CSV with instruction, output_1, output_2 and "
    "preference (1, 2, or 0 for a tie), one annotation a row.",
)
@click.option("--only", multiple=True, type=click.Choice(CHECKS), help="Only this; repeatable.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Most pairs or prompts of each check.  [default: every pair of FILE, 40 prompts, 60 pairs "
    "asked again]",
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
@budget_option
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
def check(
    name: str,
    path: str | None,
    preferences: Path | None,
    only: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    plain: bool,
) -> None:
    """Measure a judge: agreement with people, its biases, test-retest, and what attacks win.

    What the run has is not asked again. The report shows what comes out beside the judge's scores;
    docs/judges.md says what each number means and what is usual.
    """
    from localism import recipe, run
    from localism.errors import OutOfTime
    from localism.progress import Progress
    from localism.stages import judge_check

    folder = run.existing_folder(name)
    settled = recipe.settle_recipe(folder, None, ())
    deadline = click.get_current_context().obj.get("deadline", math.inf)
    asked = judge_check.Asked(path, preferences, limit, only or CHECKS)
    with Progress(plain=plain) as progress, run.opened(folder, settled, progress) as context:
        context = replace(context, deadline=deadline)
        progress.begin(1, 1, "judge check")
        try:
            judges = judge_check.run(context, asked)
        except OutOfTime:
            left = "the same command continues, and asks nothing twice"
            raise OutOfTime(f"the hours are over, and the judge is not asked yet: {left}") from None
        context.store.event("judge_checked", judge_check.STAGE, judges=judges)
        run.reopen(context.store, "report")
        progress.end(f"judges: {', '.join(judges)}")
        table = judge_check.table(context.store, judges)
    _print(table, as_json)


@judge.command(
    epilog="\b\nExamples:\n  localism judge compare teacher other-judge\n"
    "  localism judge compare teacher other-judge --run first --json"
)
@click.argument("first")
@click.argument("second")
@run_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def compare(first: str, second: str, name: str, as_json: bool) -> None:
    """Two judges on the answers that both have judged: rank agreement and shared verdicts.

    FIRST and SECOND are names of judges as `localism judge check` and table judge_check have them.
    Nothing is asked: `localism judge check --judge DIR` and `localism evaluate --judge DIR` are
    what has a second judge look at answers.
    """
    from localism import recipe, run
    from localism.stages import judge_check

    folder = run.existing_folder(name)
    config = recipe.settle_recipe(folder, None, ()).config
    _print(judge_check.compare(folder, config, first, second), as_json)


def _print(table: "Table", as_json: bool) -> None:
    rows = table.as_dicts()
    if as_json:
        click.echo("\n".join(json.dumps(row) for row in rows))
        return
    from localism.tables import terminal_width

    for name in dict.fromkeys(row["judge"] for row in rows):
        click.echo(f"judge {name}")
        own = [row for row in rows if row["judge"] == name]
        wide = max(len(row["metric"]) for row in own)
        for row in own:
            click.echo(_shown(row, wide, min(100, terminal_width())))


def _shown(row: dict[str, Any], wide: int, width: int) -> str:
    """A number with its interval on a line, and what it means under it."""
    line = f"  {row['metric']:<{wide}}  {_number(row['value']):>7}"
    if row["low"] is not None:
        line += f"  ({_number(row['low'])} to {_number(row['high'])})"
    line += f"  n {row['n']:,}" if row["n"] else ""
    line += f", {row['unscored']:,} unscored" if row["unscored"] else ""
    return (
        line
        + "\n"
        + textwrap.fill(
            row["note"] or "", width, initial_indent="      ", subsequent_indent="      "
        )
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
