"""localism sql and ui: the corpus queried from the command line and in the browser."""

import functools
import sys

import click

from localism.cli.options import format_option, run_option


@click.command(
    epilog='\b\nExamples:\n  localism sql "FROM skill_coverage LIMIT 10"\n'
    "  localism sql --run first --format csv < questions.sql"
)
@click.argument("words", nargs=-1, metavar="[QUERY]")
@run_option
@format_option
def sql(words: tuple[str, ...], name: str, form: str) -> None:
    """Query the corpus, read-only; also while the run is working. Tables: docs/sql.md.

    QUERY is SQL, .tables, or .schema [NAME]. Without one, what is piped in is answered, and in a
    terminal there is a prompt.
    """
    from localism import run
    from localism.sql_shell import Shell, history_file

    shell = Shell(run.existing_folder(name), form, functools.partial(click.echo, nl=False))
    if words:
        shell.answer(" ".join(words))
    elif sys.stdin.isatty():
        shell.prompt(history_file())
    else:
        shell.script(sys.stdin)


@click.command(
    epilog="\b\nExamples:\n  localism ui --pages http://mirror.lab:8000\n"
    "  localism ui --run first --pages http://mirror.lab:8000 --port 4300"
)
@run_option
@click.option(
    "--pages",
    metavar="URL",
    help="Where the UI's pages come from: a copy in your own network. They are not in the "
    "extension.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=4213,
    show_default=True,
    help="On this machine alone.",
)
def ui(name: str, pages: str | None, port: int) -> None:
    """DuckDB's own UI in the browser, on a copy of the corpus as it is now.

    Needs DuckDB's extension `ui` on this machine and a copy of its pages: docs/sql.md says how.
    """
    import threading

    from localism import run
    from localism.duckdb_ui import served

    with served(run.existing_folder(name), pages, port) as address:
        click.echo(f"{address}   Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("\nended")
