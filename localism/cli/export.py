"""localism export and licences: data and models for others, and what may be done with them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from localism.cli.options import run_option

if TYPE_CHECKING:
    from localism.export.make import Asked
    from localism.licences import RunLicences

FORMATS = ("instruction", "messages", "prompt-completion", "alpaca")
KINDS = ("parquet", "jsonl")
SPLITS = ("train", "dev", "test")
FLAGS = {
    "forms": "--format",
    "kinds": "--files",
    "splits": "--split",
    "checkpoint": "--checkpoint",
}


@click.command(
    epilog="\b\nExamples:\n  localism export --run first --to first-data\n"
    "  localism export --run first --what model --to first-model"
)
@run_option
@click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, metavar="DIR",
    help="Folder to write; it appears whole or not at all.",
)  # fmt: skip
@click.option(
    "--what", type=click.Choice(["data", "model", "all"]), default="data", show_default=True,
    help="The examples, the picked model, or both: DIR/data and DIR/model.",
)  # fmt: skip
@click.option(
    "--format", "forms", multiple=True, type=click.Choice(FORMATS),
    help="Shape of the examples; may be repeated, the first is what loaders take by default.  "
    "[default: instruction, messages]",
)  # fmt: skip
@click.option(
    "--files", "kinds", multiple=True, type=click.Choice(KINDS),
    help="Kind of file; may be repeated.  [default: parquet, and jsonl beside it]",
)  # fmt: skip
@click.option(
    "--split", "splits", multiple=True, type=click.Choice(SPLITS),
    help="Of the examples; may be repeated.  [default: all three]",
)  # fmt: skip
@click.option(
    "--on", "set_name", default="accepted", show_default=True, metavar="SET",
    help="A training set (see localism variant --list), or what was trained on it.",
)  # fmt: skip
@click.option("--checkpoint", metavar="ID", help="Another one than was picked.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export in DIR.")
@click.option(
    "--accept-licences", is_flag=True, help="Export although a licence forbids some uses."
)
@click.option("--json", "as_json", is_flag=True, help="Facts as one JSON object.")
def export(name: str, as_json: bool, **options: Any) -> None:
    """Write data or the picked model as a folder that other tools load, with its card.

    Data: a Hugging Face dataset folder, each row with where it came from. Model: a folder for
    transformers, vLLM and TRL. docs/export.md shows both.
    """
    from localism import reader, recipe, run
    from localism.export import make

    asked = _asked(**options)
    folder = run.existing_folder(name)
    config = recipe.with_stated_licences(folder)
    facts = make.export(lambda sql: reader.read(folder, sql).as_dicts(), folder, config, asked)
    _warn(facts["licences"])
    click.echo(json.dumps(facts) if as_json else _told(facts))


def _asked(**options: Any) -> "Asked":
    """What the options ask for; UsageError for those that say nothing about what is exported."""
    from localism.errors import UsageError
    from localism.export.make import FORMS, Asked

    unheard = {"data": ("checkpoint",), "model": ("forms", "kinds", "splits"), "all": ()}
    given = [name for name in unheard[options["what"]] if options[name]]
    if given:
        raise UsageError(
            f"{FLAGS[given[0]]} says nothing about an export of {options['what']}",
            where=f"--what {options['what']}",
            fix="leave it out, or export --what all",
        )
    options["forms"] = tuple(dict.fromkeys(options["forms"])) or FORMS
    options["kinds"] = tuple(dict.fromkeys(options["kinds"])) or KINDS
    options["splits"] = tuple(one for one in SPLITS if one in (options["splits"] or SPLITS))
    return Asked(**options)


def _warn(licences: dict[str, Any]) -> None:
    """Say on stderr what is not known, so that nobody takes silence for a yes."""
    unknown = [role for role, one in licences["roles"].items() if one["restricts"] is None]
    if unknown:
        click.echo(
            f"warning: licence unknown: {', '.join(unknown)}; see localism licences", err=True
        )
    for conflict in licences["conflicts"]:
        click.echo(f"warning: {conflict}", err=True)


def _told(facts: dict[str, Any]) -> str:
    """What was written, and what is asked of who publishes it."""
    from localism import tables

    lines = []
    if facts["what"] != "model":
        counts = ", ".join(f"{row['examples']:,} {row['split']}" for row in facts["splits"])
        lines.append(
            f"{counts} examples of {facts['set']}: "
            f"{', '.join(facts['formats'])} as {' and '.join(facts['files'])}"
        )
    if facts["what"] != "data":
        lines.append(f"{facts['checkpoint']}, {tables.gigabytes(facts['bytes'])}")
    of = "data" if facts["what"] == "data" else "model"
    licence = facts["licences"][of]
    lines.append(f"licence of the {of}: {licence['name']}")
    lines += [f"  - {demand}" for demand in licence["demands"]]
    return "\n".join([*lines, str(facts["to"])])


@click.command(
    epilog="\b\nExamples:\n  localism licences --run first\n"
    "  localism licences --run first --on teacher-small --json"
)
@run_option
@click.option(
    "--on", "set_name", default="accepted", show_default=True, metavar="SET",
    help="A training set, for that may have other teachers and sources.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def licences(name: str, set_name: str, as_json: bool) -> None:
    """Licences of a run's models and data, and what they demand of what comes out of it.

    Read from model cards, licence files and [licences] in models.toml; what is not found there is
    unknown, and unknown is never free.
    """
    from localism import reader, recipe, run
    from localism.export.data import parents
    from localism.export.rows import training_set
    from localism.licences import of_run

    folder = run.existing_folder(name)
    config = recipe.with_stated_licences(folder)
    chosen = training_set(lambda sql: reader.read(folder, sql).as_dicts(), set_name)
    found = of_run(config, parents(config, chosen))
    click.echo(json.dumps(asdict(found)) if as_json else _roll_up(found))


def _roll_up(found: "RunLicences") -> str:
    from localism import tables
    from localism.licences import NOT_LEGAL_ADVICE

    rows = [[role, one.name, one.source] for role, one in found.roles.items()]
    lines = [tables.aligned(["part", "licence", "read from"], rows).rstrip("\n")]
    for what, licence in (("data", found.data), ("model", found.model)):
        lines += ["", f"{what}: {licence.name}"]
        lines += [f"  - {demand}" for demand in licence.demands]
    lines += ["", *(f"conflict: {conflict}" for conflict in found.conflicts)]
    return "\n".join([*lines, NOT_LEGAL_ADVICE])
