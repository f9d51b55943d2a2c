"""localism ui: what it says where the extension or its pages are missing, and the copy it opens."""

import json
import socket
from datetime import datetime
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from localism import duckdb_ui, reader
from localism.cli.main import cli
from localism.errors import MachineError, UsageError
from localism.reader import CORPUS
from localism.store import Store


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home without any extension."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "recipe.json").touch()
    with Store(folder / CORPUS) as store:
        for number in range(3):
            store.event("it's", n=number, text='"quoted"\n')
        store.add("embedding", text_hash="a", embedder="b", vector=[0.25, -1.0])
        store.add(
            "score", model_id="m", split="test", metric="x", value=None, low=None, high=None, n=0,
            unscored=2,
        )  # fmt: skip
    return folder


def test_a_missing_extension_is_named_with_its_version_its_place_and_where_it_comes_from(
    folder, home
):
    done = CliRunner().invoke(cli, ["ui", "--run", str(folder), "--pages", "http://127.0.0.1:9"])
    assert isinstance(done.exception, MachineError)
    version = f"v{duckdb.__version__}"
    place = home / ".duckdb" / "extensions" / version / "linux_amd64" / "ui.duckdb_extension"
    assert version in done.exception.problem and done.exception.where == str(place)
    assert f"extensions.duckdb.org/{version}/linux_amd64" in done.exception.fix


def test_without_pages_nothing_is_opened_and_the_reason_is_said(folder, home):
    place = home / f".duckdb/extensions/v{duckdb.__version__}/linux_amd64"
    place.mkdir(parents=True)
    (place / "ui.duckdb_extension").touch()
    done = CliRunner().invoke(cli, ["ui", "--run", str(folder)])
    assert isinstance(done.exception, UsageError)
    assert "https://ui.duckdb.org" in done.exception.problem
    assert "--pages URL" in done.exception.fix


def test_a_port_that_is_taken_is_said(folder, home):
    place = home / f".duckdb/extensions/v{duckdb.__version__}/linux_amd64"
    place.mkdir(parents=True)
    (place / "ui.duckdb_extension").touch()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        arguments = ["ui", "--run", str(folder), "--pages", "http://x", "--port", port]
        done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, UsageError) and port in done.exception.problem


def test_the_copy_holds_every_row_and_view_and_can_be_made_beside_the_writer(folder, tmp_path):
    with Store(folder / CORPUS) as store, reader.answering(store, folder):
        store.event("late")
        store.flush()
        duckdb_ui.copy_corpus(folder, tmp_path / "copy.duckdb")
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as copy:
        rows = copy.execute("SELECT kind, happened_at, detail FROM event ORDER BY 1, 3").fetchall()
        assert [row[0] for row in rows] == ["it's"] * 3 + ["late"]
        assert isinstance(rows[0][1], datetime)
        assert json.loads(rows[2][2]) == {"n": 2, "text": '"quoted"\n'}
        assert copy.execute("SELECT vector FROM embedding").fetchall() == [([0.25, -1.0],)]
        assert copy.execute("SELECT value, unscored FROM score").fetchall() == [(None, 2)]
        assert copy.execute("SELECT count(*) FROM books").fetchone() == (3,)
