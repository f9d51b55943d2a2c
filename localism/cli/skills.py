"""localism skills: look at skills, compare runs, take a list out and in again."""

import json
from pathlib import Path
from typing import Any

import click

from localism.cli.options import (
    Group,
    format_option,
    models_option,
    overrides_option,
    run_option,
)

SHOWN = 50


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog="\b\nExamples:\n  localism skills --run first --search budgets\n"
    "  localism skills --run first --cluster budget_management",
)
@run_option
@click.option("--cluster", metavar="NAME", help="One cluster: its members and exemplars.")
@click.option("--noise", is_flag=True, help="Those that HDBSCAN left alone.")
@click.option("--search", metavar="TEXT", help="The nearest to a text, by their embeddings.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Rows to show.  [default: {SHOWN} in a table, else all]",
)
@format_option
@click.pass_context
def skills(
    context: click.Context,
    name: str,
    cluster: str | None,
    noise: bool,
    search: str | None,
    limit: int | None,
    form: str,
) -> None:
    """The skills of a run: sizes, clusters, exemplars, sources; also while the run is working."""
    if context.invoked_subcommand:  # `skills --run first export F` means that run, too
        context.default_map = {context.invoked_subcommand: {"name": name}}
        return
    from localism import run
    from localism.errors import UsageError
    from localism.skill_lists import look

    if bool(cluster) + noise + (search is not None) > 1:
        raise UsageError(
            "one thing at a time", where="localism skills", fix="--cluster, --noise or --search"
        )
    folder = run.existing_folder(name)
    if cluster is not None:
        _show_cluster(look.cluster(folder, cluster), form, limit)
    elif search is not None:
        _show(look.search(folder, search), form, limit)
    else:
        _show(look.noise(folder) if noise else look.listing(folder), form, limit)


def _json(found: Any) -> None:
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


def _show(rows: list[dict[str, Any]], form: str, limit: int | None) -> None:
    from localism import tables
    from localism.skill_lists import look

    shown = rows[: limit or (SHOWN if form == "table" else None)]
    if form == "json":
        _json(shown)
        return
    click.echo(tables.render(look.flat(shown), form, tables.terminal_width()), nl=False)
    if form == "table" and len(shown) < len(rows):
        click.echo(f"the first of {len(rows):,}; more with --limit")


def _show_cluster(found: dict[str, Any], form: str, limit: int | None) -> None:
    from localism import tables
    from localism.skill_lists import look

    found["members"] = found["members"][:limit]
    if form == "json":
        _json(found)
    elif form in ("csv", "markdown"):
        click.echo(tables.render(look.flat(found["members"]), form), nl=False)
    else:
        click.echo(look.cluster_text(found, tables.terminal_width()), nl=False)


@skills.command(
    epilog="\b\nExamples:\n  localism skills diff first second\n"
    "  localism skills diff first second --format json"
)
@click.argument("a")
@click.argument("b")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How it is printed; json has all rows.",
)
def diff(a: str, b: str, form: str) -> None:
    """What skills run A has and B lacks, the other way round, and which changed their cluster."""
    from localism import run, tables
    from localism.skill_lists import difference

    found = difference.compare(run.existing_folder(a), run.existing_folder(b))
    if form == "json":
        _json(found)
    else:
        click.echo(difference.text(found, tables.terminal_width()), nl=False)


@skills.command(
    epilog="\b\nExamples:\n  localism skills export skills.csv\n"
    "  localism skills export first.csv --run first"
)
@click.argument("file", type=click.Path(path_type=Path))
@run_option
def export(file: Path, name: str) -> None:
    """Write the skills as a CSV file to edit; an existing file is left alone."""
    from localism import run, tables
    from localism.skill_lists import csv_file

    number = csv_file.export(run.existing_folder(name), file)
    click.echo(
        f"wrote {tables.number_of(number, 'skill')} to {file}; rename, merge, drop or add rows, "
        "then\n"
        f"localism skills import {file} --run {name}"
    )


@skills.command(
    "import",
    epilog="\b\nExamples:\n  localism skills import edited.csv --run first\n"
    "  localism skills import list.csv --run new --models models.toml",
)
@click.argument("file", type=click.Path(path_type=Path))
@run_option
@models_option
@overrides_option
def import_(file: Path, name: str, models: Path | None, overrides: tuple[str, ...]) -> None:
    """Edit the skills of a clustered run, or start a new run with a list of skills.

    One row a skill, under a header with the column name. In a file that export wrote: another name
    renames, two rows of one name merge, a missing row drops, a row without skill_id adds.
    """
    from localism import recipe, run
    from localism.progress import Progress
    from localism.skill_lists import csv_file, edit

    listed = csv_file.read(file)
    folder = run.folder_of(name)
    if not (folder / run.RECIPE).exists():
        csv_file.check(listed)  # a file with mistakes leaves no run behind
    settled = recipe.settle_recipe(folder, models, overrides)
    with Progress(plain=True) as progress, run.opened(folder, settled, progress) as context:
        outcome = edit.bring_in(context, listed)
    if listed.unknown_columns:
        click.echo(f"warning: nothing reads {', '.join(listed.unknown_columns)}", err=True)
    click.echo(outcome)
