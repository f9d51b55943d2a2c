"""The command `localism evaluate stage`: a benchmark's files brought in."""

from pathlib import Path

import click


@click.command(
    epilog="\b\nExamples:\n  localism evaluate stage --suite alpacaeval --from /media/alpaca_eval\n"
    "  localism evaluate stage --suite mt-bench --from /media/mt_bench --to suites"
)
@click.option("--suite", "name", required=True, metavar="NAME", help="Which benchmark it is.")
@click.option(
    "--from",
    "source",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The benchmark's public files, as they were downloaded.",
)
@click.option(
    "--to",
    "staged",
    type=click.Path(path_type=Path),
    default=Path("suites"),
    show_default=True,
    metavar="DIR",
    help="Where staged benchmarks are kept; [evaluate].staged of models.toml.",
)
def stage(name: str, source: Path, staged: Path) -> None:
    """Bring a benchmark's files in: checked, fingerprinted, and ready for --suite."""
    from localism import tables
    from localism.suites import staging
    from localism.suites.known import LM_EVAL

    if name == LM_EVAL:
        from localism.lmeval import staging as lm_staging

        click.echo(lm_staging.stage(source, staged / LM_EVAL))
        return
    found = staging.stage(name, source, staged)
    items = tables.number_of(len(found.items), "item")
    click.echo(f"{name}: {items}, fingerprint {found.fingerprint}, in {staged / name}")
