"""Docs cannot rot: every key, table, view and command is described, and every query runs."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism import reader
from localism.cli.main import SECTIONS, cli
from localism.config import Config
from localism.records import STAGES
from localism.store import Store

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_has_help_with_two_examples(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert len(re.findall(rf"^\s+localism {name}\b", result.output, re.M)) == 2


def test_help_shows_every_command_once_in_pipeline_order():
    assert sorted(
        str(command.name) for commands in SECTIONS.values() for command in commands
    ) == sorted(cli.commands)
    text = CliRunner().invoke(cli, ["--help"]).output
    places = [text.index(f"\n  {stage} ") for stage in STAGES]
    assert places == sorted(places)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_readme_names_every_command(name):
    assert re.search(rf"localism {name}\b|`{name}`", (ROOT / "README.md").read_text())


def keys():
    for section, field in Config.model_fields.items():
        for key, inner in getattr(field.annotation, "model_fields", {}).items():
            yield section, key, inner.description


@pytest.mark.parametrize(("section", "key", "meaning"), list(keys()))
def test_every_key_of_models_toml_is_described_as_in_the_code(section, key, meaning):
    page = (ROOT / "docs" / "models-toml.md").read_text()
    part = page.split(f"## [{section}]")[1].split("\n## ")[0]
    assert f"| `{key}` |" in part
    assert " ".join(meaning.split()) in part


def names():
    return re.findall(
        r"^CREATE (?:TABLE IF NOT EXISTS|OR REPLACE VIEW) (\w+)",
        (ROOT / "localism" / "schema.sql").read_text(),
        re.M,
    )


@pytest.mark.parametrize("name", names())
def test_every_table_and_view_is_described_with_a_query(name):
    page = (ROOT / "docs" / "sql.md").read_text()
    assert f"## {name}\n" in page
    assert "```sql" in page.split(f"## {name}\n")[1].split("\n## ")[0]


def queries():
    return re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "sql.md").read_text(), re.S)


def test_every_query_in_the_docs_runs(tmp_path):
    Store(tmp_path / reader.CORPUS).close()
    assert len(queries()) >= len(names())
    for query in queries():
        reader.read(tmp_path, query)


def test_exit_codes_and_three_lines(tmp_path, monkeypatch):
    import subprocess
    import sys

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for arguments, code, first in [
        (["run-all", "--run", "./file"], 2, "error: a folder is needed"),
        (["run-all", "--run", "a" * 300], 2, "error: this name is too long"),
        (["run-all", "--run", "a\nb"], 2, "error: this is no name"),
        (["run-all", "--run", "file/run"], 2, "error: a folder is needed"),
        (["init", "--for", "laptop", "--to", "file/x.toml"], 2, "error: a folder is needed"),
        (["skills", "import", "folder"], 3, "error: this is no skill list"),
        (["run-all", "--models", "folder"], 3, "error: no models.toml here"),
        (["sql", "SELECT 1"], 2, "error: no run named"),
        (["run-all", "--models", "absent.toml"], 3, "error: no models.toml here"),
        (["run-all", "--nonsense"], 2, "error: no such option '--nonsense'"),
        (["nonsense"], 2, "error: no such command 'nonsense'"),
    ]:
        done = subprocess.run(
            [sys.executable, "-m", "localism", *arguments], capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith(first)
        if first.startswith("error"):
            assert [line[:6] for line in done.stderr.splitlines()] == ["error:", "where:", "fix:  "]
        assert "Traceback" not in done.stderr


def test_what_the_docs_call_free_to_change_is_free():
    """The word *speed* behind a key, and speed_keys.SPEED_ONLY, say the same."""
    from localism.speed_keys import SPEED_ONLY

    marked: set[str] = set()
    for line in (ROOT / "docs/models-toml.md").read_text().splitlines():
        if line.startswith("| `") and "*speed*" in line:
            marked.add(line.split("`")[1])
    # Of a whole table its keys are marked.
    of_tables = {"teacher", "judge", "student", "embedder", "seeds"}
    assert marked - of_tables == SPEED_ONLY - {"licences"}
