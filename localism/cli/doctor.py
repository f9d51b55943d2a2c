"""The command doctor: everything that could fail later, looked at now."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from localism.cli.options import models_option, overrides_option, run_option


@click.command(
    epilog="\b\nExamples:\n  localism doctor --models models.toml\n"
    "  localism doctor --run first --deep --json"
)
@run_option
@models_option
@overrides_option
@click.option("--deep", is_flag=True, help="Also start each engine once, with one request.")
@click.option("--json", "as_json", is_flag=True, help="The findings as one JSON object.")
def doctor(
    name: str, models: Path | None, overrides: tuple[str, ...], deep: bool, as_json: bool
) -> None:
    """Check models, memory, disk, versions and files before hours are spent."""
    from localism import tables
    from localism.doctor import findings

    found = _findings(name, models, overrides, deep)
    if as_json:
        rows = findings.as_rows(found)
        click.echo(json.dumps({"worst": findings.worst(found), "findings": rows}, indent=2))
    else:
        click.echo(findings.render(found, tables.terminal_width()), nl=False)
    sys.exit(findings.exit_code(found))


def _findings(name: str, models: Path | None, overrides: tuple[str, ...], deep: bool) -> Any:
    from localism import recipe, run
    from localism.doctor import examine, files
    from localism.errors import ConfigError, UsageError
    from localism.progress import Progress

    folder = run.folder_of(name)
    try:
        look = recipe.look_at_asked(folder, models, overrides)
    except (ConfigError, UsageError) as wrong:  # no TOML: nothing is known of what is wanted
        return [files.of_error("configuration", wrong)]
    found = examine.examine(look, folder)
    if not deep or any(finding.status == "fail" for finding in found):
        return found
    import tempfile

    # In a folder of its own: a look must not begin or change a run.
    with tempfile.TemporaryDirectory(prefix="localism-doctor-") as scratch, Progress() as progress:
        asked = recipe.Recipe(Path(look.origin.file), (), look.whole())
        with run.opened(Path(scratch), asked, progress) as context:
            return [*found, *examine.start_each(context)]
