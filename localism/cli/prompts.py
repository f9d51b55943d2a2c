"""The command `localism prompts`: prompt packs listed, checked and shown."""

import json
from pathlib import Path

import click

from localism.cli.options import Group

pack_argument = click.argument(
    "folder",
    metavar="PACK|FOLDER",
    callback=lambda _, __, value: _folder(value),
)


def _folder(name: str) -> Path:
    from localism.prompting.packs import pack_folder

    return pack_folder(name, asked_by=f"localism prompts: {name!r}")


@click.group(
    cls=Group,
    epilog="\b\nExamples:\n  localism prompts check ./my-pack\n  localism prompts show paper --k 3",
)
def prompts() -> None:
    """List, check and show prompt packs. How to make one: docs/prompt-packs.md."""


@prompts.command(
    "list",
    epilog="\b\nExamples:\n  localism prompts list\n  localism prompts list --json",
)
@click.option("--json", "as_json", is_flag=True, help="Names and folders as one JSON object.")
def list_packs(as_json: bool) -> None:
    """The packs under prompts/, each with its turns and what it is for."""
    from localism import tables
    from localism.prompting import text as pack_text
    from localism.prompting.packs import examine, pack_folder, pack_names

    if as_json:
        click.echo(json.dumps({name: str(pack_folder(name)) for name in pack_names()}))
        return
    rows = []
    for name in pack_names():
        pack, mistakes = examine(pack_folder(name))
        wrong = tables.number_of(len(mistakes), "mistake")
        fix = f"{wrong}; localism prompts check {name} shows what"
        rows.append([name, *(pack_text.headline(pack) if pack else ("", fix))])
    columns = ["pack", "turns", "what it is for"]
    click.echo(tables.aligned(columns, rows, tables.terminal_width(), prose_lines=9), nl=False)


@prompts.command(
    epilog="\b\nExamples:\n  localism prompts check paper\n  localism prompts check ./my-pack"
)
@pack_argument
def check(folder: Path) -> None:
    """Every mistake in a pack, or what it holds. PACK is a name under prompts/ or a folder."""
    from localism.prompting import text as pack_text
    from localism.prompting.packs import examine

    sound, mistakes = examine(folder)
    for mistake in mistakes[:-1]:
        click.echo(f"{mistake}\n", err=True)
    if not sound:
        raise mistakes[-1]  # the command line shows it and exits as for every wrong pack
    click.echo(pack_text.summary(sound))


@prompts.command(
    epilog="\b\nExamples:\n  localism prompts show paper --turn critique --k 1\n"
    "  localism prompts show ./my-pack --skills brewing_tea,telling_stories --no-query-type"
)
@pack_argument
@click.option("--turn", metavar="NAME", help="One turn (or another template) and nothing else.")
@click.option(
    "--k", type=click.IntRange(1, 6), default=2, show_default=True, help="How many sample skills."
)
@click.option("--skills", metavar="A,B", help="These skills instead of the samples.")
@click.option("--no-query-type", is_flag=True, help="Without a query type, as under SDD.")
def show(folder: Path, turn: str | None, k: int, skills: str | None, no_query_type: bool) -> None:
    """Render a pack's conversation with an example: what the teacher is told, turn by turn."""
    from localism.prompting import text as pack_text
    from localism.prompting.packs import SAMPLES, load_pack

    loaded = load_pack(str(folder))
    named = [name.strip() for name in (skills or "").split(",") if name.strip()]
    values = (named or pack_text.SKILLS[:k], None if no_query_type else SAMPLES["query_type"])
    text = pack_text.one(loaded, turn, *values) if turn else pack_text.conversation(loaded, *values)
    click.echo(text)
