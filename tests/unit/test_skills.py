"""Skills looked at, compared, taken out as CSV and brought in again; no models."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from localism import reader, recipe, run
from localism.cli.main import cli
from localism.errors import ConfigError, UsageError
from localism.progress import Progress
from localism.records import stable_id
from localism.skill_lists import csv_file, difference, edit, look
from localism.store import Store

# cluster -> its skills with the number of labels; the first is the medoid
WORLD = {
    "budget_management": {"budget_management": 5, "budget_planning": 3, "cost_control": 1},
    "python_programming": {"python_programming": 4, "java_programming": 2},
    "origami": {"origami": 1},
}
SEEDS = {"How do I plan a budget?": "budget_management", "Fold me a crane.": "origami"}


def fill(store: Store, world: dict[str, dict[str, int]] = WORLD) -> None:
    for medoid, members in world.items():
        cluster_id = stable_id("cluster", medoid)
        store.add(
            "cluster", cluster_id=cluster_id, name=medoid, medoid=medoid, size=len(members),
            persistence=0.5 if len(members) > 1 else None, keywords=medoid.replace("_", ", "),
        )  # fmt: skip
        for name, count in members.items():
            skill_id = stable_id("skill", name)
            store.add(
                "skill", skill_id=skill_id, name=name, cluster_id=cluster_id, count=count,
                rare=len(members) == 1, hdbscan_label=-1 if len(members) == 1 else 7,
                strength=0.9, map_x=1.0, map_y=2.0,
            )  # fmt: skip
            for number in range(count):
                store.add(
                    "skill_label", label_id=f"{name}-{number}", raw=name, name=name,
                    skill_id=skill_id, source="sda", topic_id="t1", reason=f"shows {name}",
                )  # fmt: skip
    store.flush()  # the labels below have other columns
    store.add("topic", topic_id="t1", name="Everyday life", ordinal=0)
    for instruction, cluster in SEEDS.items():
        seed_id = stable_id(instruction)
        store.add(
            "seed_example", seed_id=seed_id, source="seeds.jsonl", ordinal=0,
            instruction=instruction, cluster_id=stable_id("cluster", cluster), assigned_by="label",
        )  # fmt: skip
        store.add(
            "skill_label", label_id=f"seed-{cluster}", raw=cluster, name=cluster, source="sdd",
            skill_id=stable_id("skill", cluster), seed_id=seed_id,
        )  # fmt: skip
    store.execute(
        "UPDATE skill SET count = (SELECT count(*) FROM skill_label l"
        " WHERE l.skill_id = skill.skill_id)"
    )


@pytest.fixture(scope="module")
def finished_cluster(tmp_path_factory):
    """A run of the usual world, made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("once"))
        return make_run().resolve()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def first(finished_cluster, here):
    """A copy of it as runs/first."""
    return Path(shutil.copytree(finished_cluster, run.folder_of("first")))


def make_run(name: str = "first", world: dict[str, dict[str, int]] = WORLD) -> Path:
    """A run that stands between cluster and mix."""
    folder = run.folder_of(name)
    asked = recipe.settle_recipe(folder, None, [])
    with run.opened(folder, asked, Progress(plain=True)) as context:
        fill(context.store, world)
        for stage in ("extract", "cluster"):
            context.store.event("stage_finished", stage, summary="made by hand")
    return folder


def rows(folder: Path, sql: str) -> list[dict]:
    return reader.read(folder, sql).as_dicts()


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["skills", *arguments])


def text(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exception is None, result.exception
    return result.output


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def exported(name: str = "first") -> tuple[Path, list[dict[str, str]]]:
    path = Path(f"{name}.csv")
    text("export", str(path), "--run", name)
    with path.open() as file:
        return path, list(csv.DictReader(file))


def save(path: Path, listed: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, csv_file.COLUMNS)
        writer.writeheader()
        writer.writerows(listed)


def snapshot(folder: Path) -> dict[str, list]:
    """Everything that an edit may touch."""
    tables = ("skill", "cluster", "skill_label", "seed_example", "event")
    return {table: reader.read(folder, f"FROM {table} ORDER BY ALL").rows for table in tables}


def check_whole(folder: Path) -> None:
    """Sizes, counts, pointers and books agree with each other."""
    wrong = [
        "SELECT name FROM skill s WHERE count <>"
        " (SELECT count(*) FROM skill_label l WHERE l.skill_id = s.skill_id)",
        "SELECT name FROM cluster c WHERE size <>"
        " (SELECT count(*) FROM skill s WHERE s.cluster_id = c.cluster_id)",
        "SELECT name FROM cluster c WHERE medoid NOT IN"
        " (SELECT name FROM skill s WHERE s.cluster_id = c.cluster_id)",
        "SELECT name FROM skill WHERE cluster_id NOT IN (SELECT cluster_id FROM cluster)",
        "SELECT raw FROM skill_label WHERE skill_id NOT IN (SELECT skill_id FROM skill)",
        "SELECT seed_id FROM seed_example WHERE cluster_id NOT IN (SELECT cluster_id FROM cluster)",
        "SELECT name FROM skill GROUP BY name HAVING count(*) > 1",
        "SELECT name FROM cluster GROUP BY name HAVING count(*) > 1",
        "FROM books WHERE stage = 'cluster' AND (pending > 0 OR planned <> accepted + rejected)",
    ]
    assert {sql: rows(folder, sql) for sql in wrong} == {sql: [] for sql in wrong}
    ids = rows(folder, "SELECT skill_id, name FROM skill")
    assert [row["skill_id"] for row in ids] == [stable_id("skill", row["name"]) for row in ids]


# ---- looking ---------------------------------------------------------------------------------


def test_the_listing_has_sizes_clusters_sources_and_exemplars(first):
    found = json.loads(text("--run", "first", "--format", "json"))
    assert [row["skill"] for row in found[:2]] == ["budget_management", "python_programming"]
    assert found[0] == {
        "skill": "budget_management",
        "labels": 6,
        "cluster": "budget_management",
        "rare": False,
        "sources": ["sda", "sdd"],
        "exemplars": ["How do I plan a budget?"],
    }
    assert found[1]["exemplars"] == ["topic: Everyday life"]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_tables_fit_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    make_run(world={"a" * 50: {"a" * 50: 3, "b" * 70: 2}})
    for arguments in ([], ["--cluster", "a" * 50], ["--noise"]):
        lines = text("--run", "first", *arguments).splitlines()
        assert max(map(len, lines)) <= width


def test_a_limit_cuts_the_table_and_says_so(first):
    assert "the first of 6; more with --limit" in text("--run", "first", "--limit", "2")
    assert len(text("--run", "first", "--format", "csv").splitlines()) == 7


def test_noise_lists_what_hdbscan_left_alone(first):
    found = json.loads(text("--run", "first", "--noise", "--format", "json"))
    assert [row["skill"] for row in found] == ["origami"]


def test_a_cluster_shows_its_members_and_the_seed_examples_that_exhibit_it(first):
    found = json.loads(text("--run", "first", "--cluster", "Budget Management", "--format", "json"))
    assert [row["skill"] for row in found["members"]] == [
        "budget_management", "budget_planning", "cost_control",
    ]  # fmt: skip
    assert found["exemplars"] == [
        {"instruction": "How do I plan a budget?", "assigned_by": "label"}
    ]
    shown = text("--run", "first", "--cluster", "budget_management")
    assert "cost_control" in shown and "How do I plan a budget?" in shown


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("budget_managment", "--cluster budget_management"),
        ("cost_control", "cost_control is a skill of this cluster: --cluster budget_management"),
        ("'; DROP TABLE skill; --", "--cluster "),
    ],
)
def test_an_unknown_cluster_names_the_nearest(first, name, fix):
    with pytest.raises(UsageError, match="no cluster is named") as caught:
        look.cluster(first, name)
    assert fix in caught.value.fix
    assert len(rows(first, "FROM skill")) == 6


def test_a_run_without_skills_says_what_to_do():
    folder = run.folder_of("empty")
    asked = recipe.settle_recipe(folder, None, [])
    with run.opened(folder, asked, Progress(plain=True)):
        pass
    for arguments in (["--run", "empty"], ["--run", "empty", "--cluster", "x"]):
        assert isinstance(call(*arguments).exception, ConfigError)
    assert isinstance(call("export", "x.csv", "--run", "empty").exception, ConfigError)


def test_skills_are_listed_beside_the_process_that_works_on_the_run(first):
    asked = recipe.settle_recipe(first, None, [])
    with run.opened(first, asked, Progress(plain=True)):
        done = subprocess.run(
            [sys.executable, "-m", "localism", "skills", "--run", "first"],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0 and "budget_planning" in done.stdout, done.stderr


# ---- differences -----------------------------------------------------------------------------


def test_diff_tells_what_each_run_has_alone_and_what_moved(first):
    other = {
        "budget_management": {"budget_management": 5, "budget_plans": 1},
        "cost_control": {"cost_control": 1, "origami": 1},
        "python_programming": {"python_programming": 4, "java_programming": 2},
    }
    make_run("second", other)
    found = json.loads(text("diff", "first", "second", "--format", "json"))
    assert found["summary"] == {
        "a": "first", "b": "second", "skills_a": 6, "skills_b": 6,
        "only_a": 1, "only_b": 1, "both": 5, "moved": 3,
    }  # fmt: skip
    assert found["only_a"][0]["skill"] == "budget_planning"
    assert found["only_a"][0]["nearest"] == "budget_plans"
    assert found["only_a"][0]["by"] == "name"
    moved = {row["skill"]: row for row in found["moved"]}
    assert moved["cost_control"]["left"] == ["budget_management"]
    assert moved["cost_control"]["joined"] == ["origami"]
    assert "budget_planning" in text("diff", "first", "second")


def test_diff_of_a_run_with_itself_is_empty(first):
    found = difference.compare(first, first)
    assert not found["only_a"] and not found["only_b"] and not found["moved"]


# ---- out and in again ------------------------------------------------------------------------


def test_export_and_import_unchanged_changes_nothing(first):
    path, listed = exported()
    assert list(listed[0]) == list(csv_file.COLUMNS) and len(listed) == 6
    before = snapshot(first)
    assert text("import", str(path), "--run", "first") == "no change\n"
    assert snapshot(first) == before


def test_an_export_is_not_written_over(first):
    path, _ = exported()
    path.write_text("an hour of edits")
    assert isinstance(call("export", str(path), "--run", "first").exception, UsageError)
    assert path.read_text() == "an hour of edits"


def test_an_export_that_cannot_be_written_says_where(first, tmp_path):
    (tmp_path / "file").touch()
    refused = call("export", str(tmp_path / "file" / "skills.csv"), "--run", "first").exception
    assert isinstance(refused, UsageError) and f"{tmp_path}/file/skills.csv (" in refused.where


def test_the_run_may_be_named_before_the_subcommand(first):
    text("--run", "first", "export", "x.csv")
    assert Path("x.csv").exists()


@pytest.fixture
def edited(first) -> tuple[Path, Path]:
    """One rename (of a medoid), one merge, one drop, one added skill."""
    path, listed = exported()
    by_name = {row["name"]: row for row in listed}
    by_name["budget_management"]["name"] = "Household Budgets"
    by_name["java_programming"]["name"] = "python_programming"
    listed.remove(by_name["origami"])
    listed.append({"name": "kite flying", "count": "3", "reason": "fun", "cluster": ""})
    save(path, listed)
    return first, path


def test_rows_are_renamed_merged_dropped_and_added(edited):
    folder, path = edited
    assert text("import", str(path), "--run", "first") == (
        "1 renamed, 1 merged, 1 dropped, 1 added: 5 skills in 3 clusters\n"
    )
    check_whole(folder)
    found = {row["name"]: row for row in rows(folder, "FROM skill")}
    assert {name: row["count"] for name, row in found.items()} == {
        "household_budgets": 6, "budget_planning": 3, "cost_control": 1,
        "python_programming": 6, "kite_flying": 3,
    }  # fmt: skip
    assert found["household_budgets"]["hdbscan_label"] == 7
    assert found["kite_flying"]["rare"] and not found["python_programming"]["rare"]
    clusters = {row["name"]: row for row in rows(folder, "FROM cluster")}
    assert {name: row["size"] for name, row in clusters.items()} == {
        "household_budgets": 3, "python_programming": 1, "kite_flying": 1,
    }  # fmt: skip
    assert clusters["household_budgets"]["persistence"] == 0.5
    assert "household" in clusters["household_budgets"]["keywords"]
    assert rows(folder, "SELECT DISTINCT unusable FROM skill_label WHERE raw = 'origami'") == [
        {"unusable": f"dropped by {edit.user()}"}
    ]
    assert rows(
        folder, "SELECT source, reason, count(*) AS n FROM skill_label WHERE raw = 'kite flying'"
        " GROUP BY ALL",
    ) == [{"source": "first.csv", "reason": "fun", "n": 3}]  # fmt: skip


def test_seed_examples_follow_their_cluster_or_lose_it(edited):
    folder, path = edited
    text("import", str(path), "--run", "first")
    found = {r["instruction"]: r for r in rows(folder, "FROM seed_example")}
    budget, crane = found["How do I plan a budget?"], found["Fold me a crane."]
    assert budget["cluster_id"] == stable_id("cluster", "household_budgets")
    assert crane["cluster_id"] is None and crane["assigned_by"] is None


def test_an_edit_is_an_event_with_who_what_and_how_much(edited):
    folder, path = edited
    text("import", str(path), "--run", "first")
    event = rows(folder, "FROM event WHERE kind = 'skills_edited'")
    assert len(event) == 1 and event[0]["happened_at"]
    import hashlib

    assert json.loads(event[0]["detail"]) == {
        "user": edit.user(), "file": "first.csv",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "renamed": 1, "merged": 1, "dropped": 1, "added": 1,
    }  # fmt: skip


def test_the_same_edit_twice_changes_nothing_the_second_time(edited):
    folder, path = edited
    text("import", str(path), "--run", "first")
    before = snapshot(folder)
    assert text("import", str(path), "--run", "first").startswith("no change")
    assert snapshot(folder) == before


def test_an_edited_file_can_be_edited_further(edited):
    folder, path = edited
    text("import", str(path), "--run", "first")
    with path.open() as file:
        listed = [row for row in csv.DictReader(file) if row["name"] != "kite flying"]
    save(path, listed)
    assert text("import", str(path), "--run", "first").startswith("1 dropped: 4 skills")
    save(path, [*listed, {"name": "kite flying"}])
    assert text("import", str(path), "--run", "first").startswith("1 added: 5 skills")
    check_whole(folder)


def test_names_can_be_swapped_and_a_dropped_name_taken(first):
    path, listed = exported()
    by_name = {row["name"]: row for row in listed}
    by_name["budget_management"]["name"], by_name["origami"]["name"] = (
        "origami", "budget_management",
    )  # fmt: skip
    by_name["java_programming"]["name"] = "python_programming"
    by_name["python_programming"]["name"] = "snake_charming"
    listed.remove(by_name["cost_control"])
    by_name["budget_planning"]["name"] = "cost_control"
    save(path, listed)
    text("import", str(path), "--run", "first")
    check_whole(first)
    labels = rows(
        first,
        "SELECT l.name AS was, s.name AS is_now, count(*) AS n FROM skill_label l"
        " JOIN skill s USING (skill_id) GROUP BY ALL",
    )
    assert {row["was"]: row["is_now"] for row in labels} == {
        "budget_management": "origami", "origami": "budget_management",
        "budget_planning": "cost_control", "java_programming": "python_programming",
        "python_programming": "snake_charming",
    }  # fmt: skip


def test_a_cluster_that_loses_its_medoid_is_named_after_its_largest_skill(first):
    path, listed = exported()
    save(path, [row for row in listed if row["name"] != "budget_management"])
    text("import", str(path), "--run", "first")
    check_whole(first)
    assert rows(first, "SELECT size FROM cluster WHERE name = 'budget_planning'") == [{"size": 2}]


def test_a_name_that_the_teacher_gave_a_cluster_stays(first):
    asked = recipe.settle_recipe(first, None, [])
    with run.opened(first, asked, Progress(plain=True)) as context:
        context.store.execute(
            "UPDATE cluster SET name = 'money' WHERE medoid = 'budget_management'"
        )
    path, listed = exported()
    save(path, [row for row in listed if row["name"] != "budget_management"])
    text("import", str(path), "--run", "first")
    check_whole(first)
    assert rows(first, "SELECT medoid FROM cluster WHERE name = 'money'") == [
        {"medoid": "budget_planning"}
    ]


def test_an_added_skill_joins_the_cluster_that_its_row_names(first):
    path, listed = exported()
    save(path, [*listed, {"name": "rust_programming", "cluster": "python_programming"}])
    text("import", str(path), "--run", "first")
    check_whole(first)
    found = look.cluster(first, "python_programming")
    assert "rust_programming" in [row["skill"] for row in found["members"]]


def test_a_changed_count_is_said_not_to_be_read(first):
    path, listed = exported()
    listed[0]["count"] = "99"
    save(path, listed)
    assert "1 row with another count or cluster" in text("import", str(path), "--run", "first")


def test_a_row_that_names_a_skill_that_exists_is_said_to_add_nothing(first):
    path, listed = exported()
    save(path, [*listed, {"name": "Origami", "count": "9"}, {"name": "kite_flying"}])
    said = text("import", str(path), "--run", "first")
    assert said.startswith("1 added: 7 skills")
    assert "without skill_id, but a skill that the run has: line 8, nothing added" in said
    assert rows(first, "SELECT count FROM skill WHERE name = 'origami'") == [{"count": 2}]


def test_a_skill_id_of_another_run_is_said_to_be_taken_by_name(first):
    path, listed = exported()
    listed[1]["skill_id"], listed[2]["skill_id"] = "0123456789abcdef", "fedcba9876543210"
    save(path, listed)
    said = text("import", str(path), "--run", "first")
    assert said == "no change; a skill_id that the run has not, taken by name: lines 3, 4\n"


def test_a_strange_skill_id_beside_a_name_that_is_given_away_is_refused(first):
    path, listed = exported()
    by_name = {row["name"]: row for row in listed}
    by_name["origami"]["name"] = "paper_folding"
    save(path, [*listed, {"skill_id": "0123456789abcdef", "name": "origami"}])
    before = snapshot(first)
    refused = call("import", str(path), "--run", "first").exception
    assert isinstance(refused, ConfigError) and "its skill origami gets another name" in str(
        refused
    )
    assert snapshot(first) == before


def test_swapped_names_stay_swapped_when_the_file_is_imported_again(first):
    path, listed = exported()
    listed[0]["name"], listed[1]["name"] = listed[1]["name"], listed[0]["name"]
    save(path, listed)
    assert text("import", str(path), "--run", "first").startswith("2 renamed")
    before = snapshot(first)
    assert text("import", str(path), "--run", "first").startswith("no change")
    assert snapshot(first) == before


# ---- mistakes --------------------------------------------------------------------------------


def test_every_mistake_of_a_file_is_listed_with_its_line_and_nothing_changes(first):
    path, listed = exported()
    known = listed[0]["skill_id"]
    with path.open("a") as file:
        file.write(f"{known},again,,,,,\n")  # line 8
        file.write("nonsense,never_seen,,,,,\n")
        file.write(",,,,,,\n")  # an empty row is no row
        file.write(f"{listed[1]['skill_id']}x,,,,,,\n")
        file.write(",new,no_such_cluster,,,,\n")
        file.write(",new_too,,minus one,,,\n")
        file.write(",!!!,,0,,,\n")
    before = snapshot(first)
    result = call("import", str(path), "--run", "first")
    assert isinstance(result.exception, ConfigError)
    said = str(result.exception)
    for line, problem in [
        (8, f"skill_id '{known}' stands in line 2 too"),
        (9, "no skill_id 'nonsense'"),
        (11, "the name is empty"),
        (12, "no cluster 'no_such_cluster'"),
        (13, "count 'minus one' is no whole number"),
        (14, "'!!!' cannot name a skill: no word in it"),
        (14, "count '0'"),
    ]:
        assert any(part.strip().startswith(f"line {line}: ") and problem in part
                   for part in said.splitlines()), (line, problem, said)  # fmt: skip
    assert snapshot(first) == before


def test_at_most_twenty_mistakes_are_shown():
    path = write(Path("x.csv"), "name", *["!!!"] * 50)
    said = str(call("import", str(path), "--run", "new").exception)
    assert said.startswith("error: 50 mistakes") and said.count("line ") == 20
    assert "and 30 more" in said
    assert not run.folder_of("new").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"skill,count\nx,1\n", "no column `name`"),
        (b"", "no column `name`"),
        (b"name\n", "no rows"),
        (b"name,name\na,b\n", "twice"),
        (b"name\n\xff\xfe\n", "not UTF-8"),
        (b'name\n"a\n', "line"),
        (b"name,count\na,999999999\n", "add up to"),
        (b"name\na,b,c\n", "3 cells under 1 column;"),
    ],
)
def test_a_file_that_is_no_list_is_refused_and_leaves_no_run(content, reason):
    Path("x.csv").write_bytes(content)
    result = call("import", "x.csv", "--run", "new")
    assert isinstance(result.exception, ConfigError), result.exception
    assert reason in str(result.exception)
    assert not run.folder_of("new").exists()


def test_unknown_columns_are_named_in_a_warning():
    write(Path("x.csv"), "name,colour,count", "Origami,red,2")
    assert "warning: nothing reads colour" in text("import", "x.csv", "--run", "new")


# ---- when ------------------------------------------------------------------------------------


def test_after_mix_skills_are_fixed_and_the_way_out_is_a_fork(first):
    path, listed = exported()
    asked = recipe.settle_recipe(first, None, [])
    with run.opened(first, asked, Progress(plain=True)) as context:
        context.store.add("mix", mix_id="m", ordinal=0, k=2, query_type_id=None, split="train")
    before = snapshot(first)
    with pytest.raises(UsageError, match="until mix") as caught:
        raise call("import", str(path), "--run", "first").exception
    assert "localism fork first NEW" in caught.value.fix
    assert snapshot(first) == before


def test_between_extract_and_cluster_there_is_nothing_to_edit_yet(first):
    path, _ = exported()
    asked = recipe.settle_recipe(first, None, [])
    with run.opened(first, asked, Progress(plain=True)) as context:
        context.store.execute("DELETE FROM event WHERE stage = 'cluster'")
    with pytest.raises(UsageError, match="cluster comes first"):
        raise call("import", str(path), "--run", "first").exception


def test_a_list_starts_a_run_in_place_of_extract():
    write(
        Path("list.csv"),
        "name,count,reason,source",
        "Budget Management,3,asked often,interviews",
        "origami,,,",
        "budget_management,2,,",
    )
    said = text("import", "list.csv", "--run", "new")
    folder = run.folder_of("new")
    assert said == f"2 skills imported from list.csv by {edit.user()}, 6 labels\n"
    assert rows(
        folder, "SELECT name, source, count(*) AS n FROM skill_label GROUP BY ALL ORDER BY ALL"
    ) == [
        {"name": "budget_management", "source": "interviews", "n": 3},
        {"name": "budget_management", "source": "list.csv", "n": 2},
        {"name": "origami", "source": "list.csv", "n": 1},
    ]  # fmt: skip
    asked = recipe.settle_recipe(folder, None, [])
    with run.opened(folder, asked, Progress(plain=True)) as context:
        assert run.finished_stages(context.store) == {"extract": said.strip()}
    before = snapshot(folder)
    assert text("import", "list.csv", "--run", "new").startswith("no change")
    assert snapshot(folder) == before


def test_label_ids_of_a_list_do_not_hang_on_the_order_of_its_rows():
    ids = []
    for name, order in (("one", 1), ("two", -1)):
        write(Path("list.csv"), "name,count", *["a,2", "b,1", "a,1"][::order])
        text("import", "list.csv", "--run", name)
        ids.append(rows(run.folder_of(name), "SELECT label_id FROM skill_label ORDER BY ALL"))
    assert ids[0] == ids[1] and len(ids[0]) == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from localism.store import Store
Store._write_before, moment = Store._write, int(sys.argv[1])
def write(self, table, rows):
    global moment
    moment -= table in ("skill", "cluster", "event", "skill_label")
    if moment == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    Store._write_before(self, table, rows)
from localism import recipe, run
opened = run.opened
def armed(*a):
    import contextlib
    @contextlib.contextmanager
    def inside():
        with opened(*a) as context:
            Store._write = write
            yield context
    return inside()
run.opened = armed
from localism.cli.main import cli
cli(["skills", "import", "first.csv", "--run", "first"])
"""


@pytest.mark.parametrize("moment", [1, 3])
def test_a_kill_in_the_middle_of_an_edit_leaves_the_skills_as_they_were(edited, moment):
    folder, path = edited
    before = snapshot(folder)
    done = subprocess.run([sys.executable, "-c", KILLED, str(moment)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert snapshot(folder) == before
    assert text("import", str(path), "--run", "first").startswith("1 renamed, 1 merged")
    check_whole(folder)


def test_two_edits_at_once_are_refused(edited):
    folder, path = edited
    asked = recipe.settle_recipe(folder, None, [])
    with run.opened(folder, asked, Progress(plain=True)):
        result = call("import", str(path), "--run", "first")
    assert "already being worked on" in str(result.exception)


@pytest.mark.parametrize("name", ["diff", "export", "import"])
def test_every_subcommand_has_help_with_two_examples(name):
    assert text(name, "--help").count(f"  localism skills {name} ") == 2
