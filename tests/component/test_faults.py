"""Faults in real runs of the miniature: what a user sees, and that the same command completes them.

The session's engine stands behind a proxy that fails as told. benchmarks/faults.py injects more of
them, in all stages.
"""

import json
import shutil
import signal
import subprocess
import threading

import faulty
import pytest
import tmpfs
from pipeline import run_all

from localism import reader

TINY = (
    "extract.topics=2", "extract.skills_per_topic=4", "extract.seed_examples=4",
    "extract.max_rounds=2", "mix.train=10", "mix.dev=2", "mix.test=2",
)  # fmt: skip
GENERATE = "generate   started"
LIMIT = 300
pytestmark = pytest.mark.timeout(2 * LIMIT)


class Site:
    """A proxy before the session's engine, and a command that uses it."""

    def __init__(self, proxy: faulty.Proxy, key: str) -> None:
        self.proxy, self._key = proxy, key

    def call(self, folder, until, when="", do=lambda child: None):
        """Exit code and stderr of the command; `do` is done once a line has the words `when`."""
        endpoints = f"teacher.endpoints={json.dumps([self.proxy.url])}"
        overrides = (*TINY, endpoints, "teacher.path=", f"teacher.api_key_file={self._key}")
        command = run_all(folder, *(part for one in overrides for part in ("--set", one)))
        child = subprocess.Popen(
            [*command, "--until", until],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said, is_done = [], not when
        for line in child.stderr:
            said.append(line)
            if not is_done and when in line:
                is_done = True
                threading.Thread(target=do, args=(child,)).start()
        return child.wait(LIMIT), "".join(said)


@pytest.fixture(scope="module")
def site(teacher, tmp_path_factory):
    proxy = faulty.Proxy(teacher.url)
    yield Site(proxy, str(teacher.key_file))
    proxy.close()


@pytest.fixture(scope="module")
def planned(site, tmp_path_factory):
    """A run whose mixes are planned."""
    folder = tmp_path_factory.mktemp("faults") / "runs" / "planned"
    code, said = site.call(folder, "mix")
    assert code == 0, said
    return folder


@pytest.fixture
def folder(planned, tmp_path):
    return shutil.copytree(planned, tmp_path / "runs" / "broken")


def assert_whole(folder):
    """Every mix has one candidate, none failed, and every turn is there once."""
    (row,) = reader.read(
        folder,
        """
        SELECT (SELECT count(*) FROM mix) AS mixes, (SELECT count(*) FROM candidate) AS candidates,
               (SELECT count(*) FROM candidate WHERE status = 'failed') AS failed,
               (SELECT count(*) FROM turn WHERE stage = 'generate') AS turns,
               (SELECT count(DISTINCT (parent_id, prompt, sample)) FROM turn
                WHERE stage = 'generate') AS asked""",
    ).as_dicts()
    assert row["candidates"] == row["mixes"] == 14 and row["failed"] == 0
    assert row["turns"] == row["asked"] >= 2 * row["mixes"]
    for book in reader.read(folder, "FROM books").as_dicts():
        if book["stage"] == "generate":
            assert book["pending"] == 0
            assert book["planned"] == book["accepted"] + book["rejected"] + book["failed"]


def assert_told(said, *words):
    """The run ended with a problem, a place and a fix, and no traceback."""
    assert "Traceback" not in said
    told = said[said.rindex("error: ") :]
    assert "\nwhere: " in told and "\nfix:   " in told
    for text in words:
        assert text in told


@pytest.mark.parametrize("name", ["HTML", "500"])
def test_an_endpoint_that_fails_for_a_while_costs_no_row(site, folder, name):
    faults = faulty.GARBAGE | {"500": faulty.status(500)}
    failed = site.proxy.failed
    code, said = site.call(
        folder, "generate", GENERATE, lambda _: site.proxy.fail_for(3.0, faults[name])
    )
    assert code == 0, said
    assert site.proxy.failed > failed
    assert_whole(folder)


def test_sigterm_ends_a_run_that_the_same_command_completes(site, folder):
    code, said = site.call(
        folder, "generate", GENERATE, lambda run: run.send_signal(signal.SIGTERM)
    )
    assert code == 130 and "the same command continues" in said and "Traceback" not in said
    assert site.call(folder, "generate")[0] == 0
    assert_whole(folder)


@pytest.fixture
def small_disk(planned, tmp_path):
    """A disk of 200 MiB with a run whose mixes are planned."""
    disk = tmp_path / "small"
    disk.mkdir()
    with tmpfs.mounted(disk, "200m"):
        shutil.copytree(planned, disk / "run")
        yield disk


def test_a_disk_that_fills_up_ends_the_run_and_with_room_it_goes_on(site, small_disk):
    def fill(_):
        with (small_disk / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"x" * 65536):
                    pass
            except OSError:
                pass

    folder = small_disk / "run"
    code, said = site.call(folder, "generate", GENERATE, fill)
    assert code == 4, said
    assert_told(said, "the disk is full", str(folder))
    (small_disk / "ballast").unlink()
    code, said = site.call(folder, "generate")
    assert code == 0, said
    assert_whole(folder)


@pytest.mark.parametrize(
    ("name", "problem"), [("run", "cannot be written"), ("new", "read-only file system")]
)
def test_a_read_only_run_folder_is_told_at_once(site, small_disk, name, problem):
    tmpfs.remount(small_disk, "ro")
    asked = site.proxy.replies
    code, said = site.call(small_disk / name, "generate")
    assert code == 4, said
    assert_told(said, problem, str(small_disk))
    assert site.proxy.replies == asked


def test_a_clock_that_was_set_back_has_nothing_done_again_or_left_out(site, folder, monkeypatch):
    """Events of a year to come, as after a start before the clock was set."""
    import duckdb

    with duckdb.connect(str(folder / reader.CORPUS)) as corpus:
        corpus.execute("UPDATE event SET happened_at = happened_at + INTERVAL 1 YEAR")
    asked = site.proxy.replies
    code, said = site.call(folder, "generate")
    assert code == 0 and said.count("done earlier") == 3, said
    assert_whole(folder)
    asked_for_this = site.proxy.replies - asked
    turns = reader.read(folder, "SELECT count(*) FROM turn WHERE stage = 'generate'").rows[0][0]
    assert asked_for_this == turns
    assert "nothing to do" in site.call(folder, "generate")[1]
