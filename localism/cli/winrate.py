"""The command winrate: win rates of any preference file."""

import json
from pathlib import Path

import click


@click.command(
    epilog="\b\nExamples:\n  localism winrate preferences.csv --json\n"
    "  localism winrate preferences.csv --compat --difficulty d.csv --gamed g.json "
    "--gamed-lengths l.csv"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a model.")
@click.option("--compat", is_flag=True, help="AlpacaEval 2's own formula.")
@click.option("--difficulty", type=click.Path(path_type=Path), help="compat: index,difficulty.")
@click.option("--gamed", type=click.Path(path_type=Path), help="compat: constants (JSON).")
@click.option("--gamed-lengths", type=click.Path(path_type=Path), help="compat: lengths (CSV).")
@click.option(
    "--length-slope",
    type=float,
    metavar="PHI",
    help="The judge's own length slope, where known; below 0 for one that likes length.",
)
def winrate(
    file: Path,
    as_json: bool,
    compat: bool,
    difficulty: Path | None,
    gamed: Path | None,
    gamed_lengths: Path | None,
    length_slope: float | None,
) -> None:
    """Win rates of a preference file: model,index,preference,len_model,len_baseline."""
    from localism.judging.winrate_report import winrate_report

    rows = winrate_report(
        file,
        compat=compat,
        difficulty=difficulty,
        gamed=gamed,
        gamed_lengths=gamed_lengths,
        phi_calibrated=length_slope,
    )
    if as_json:
        click.echo("\n".join(json.dumps(row) for row in rows))
    else:
        from localism import tables
        from localism.reader import Table

        click.echo(
            tables.render(Table(list(rows[0]), [list(r.values()) for r in rows]), "table"), nl=False
        )
