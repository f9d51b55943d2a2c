"""A skill list of a thousand names starts a run: imported, clustered, searched, edited, mixed."""

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from localism import reader
from localism.cli.main import cli

pytestmark = pytest.mark.component

PAPER = Path(__file__).parents[1] / "data" / "skills_sda.txt"
RUN = Path("runs/mine")


def names() -> list[str]:
    """The paper's SDA skills as it prints them, duplicates included."""
    return [line for line in PAPER.read_text().splitlines() if line and line[0] != "#"]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, [*arguments])
    assert result.exception is None, result.exception
    return result.output


def rows(sql: str) -> list[dict]:
    return reader.read(RUN, sql).as_dicts()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The list imported and clustered; the working folder is where the run is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("mine"))
        lines = [f"{name},{1 + number % 3}" for number, name in enumerate(names())]
        Path("list.csv").write_text("\n".join(["name,count", *lines]) + "\n")
        said = call("skills", "import", "list.csv", "--run", "mine")
        call("cluster", "--run", "mine", "--plain")
        yield said


def test_the_counts_of_a_list_survive_into_labels_and_skills(imported):
    listed = names()
    total = sum(1 + number % 3 for number in range(len(listed)))
    assert imported.startswith(f"{len(set(listed)):,} skills imported from list.csv by ")
    assert rows("SELECT count(*) AS n, sum((skill_id IS NULL)::INT) AS lost FROM skill_label") == [
        {"n": total, "lost": 0}
    ]
    assert rows("SELECT sum(count) AS n FROM skill") == [{"n": total}]
    assert 950 < len(rows("FROM skill")) < len(set(listed))


def test_search_finds_skills_by_meaning(imported):
    found = json.loads(
        call("skills", "--run", "mine", "--search", "looking after money at home", "--limit", "5",
             "--format", "json")
    )  # fmt: skip
    assert len(found) == 5 and found[0]["cosine"] > 0.4
    assert [row["cosine"] for row in found] == sorted((r["cosine"] for r in found), reverse=True)
    assert any(word in row["skill"] for row in found for word in ("budget", "financ", "household"))


def test_every_skill_and_its_cluster_can_be_looked_at(imported):
    largest = rows("SELECT name, size FROM cluster ORDER BY size DESC, name LIMIT 1")[0]
    found = json.loads(
        call("skills", "--run", "mine", "--cluster", largest["name"], "--format", "json")
    )
    assert len(found["members"]) == largest["size"] == found["skills"]
    noise = json.loads(call("skills", "--run", "mine", "--noise", "--format", "json"))
    assert len(noise) == len(rows("FROM skill WHERE hdbscan_label = -1")) > 100


def test_an_edited_list_is_searched_compared_and_mixed_without_a_model(imported):
    call("skills", "export", "mine.csv", "--run", "mine")
    with open("mine.csv") as file:
        listed = list(csv.DictReader(file))
    assert call("skills", "import", "mine.csv", "--run", "mine") == "no change\n"
    before = len(listed)
    listed[0]["name"] = "pipe organ restoration"
    with open("mine.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(listed[:-1])
    assert call("skills", "import", "mine.csv", "--run", "mine").startswith("1 renamed, 1 dropped:")
    found = json.loads(
        call("skills", "--run", "mine", "--search", "church organs", "--format", "json")
    )
    assert found[0]["skill"] == "pipe_organ_restoration" and len(found) == before - 1
    call("mix", "--run", "mine", "--plain")
    assert rows("SELECT count(*) AS n, count(query_type_id) AS typed FROM mix") == [
        {"n": 460, "typed": 0}
    ]
    assert rows("SELECT count(DISTINCT skill_id) AS n FROM mix_skill") == [
        {"n": min(920, before - 1)}
    ]
    assert rows("SELECT count(*) AS n FROM turn") == [{"n": 0}]


def test_runs_of_two_lists_are_compared_by_their_embeddings(imported):
    Path("other.csv").write_text("name\n" + "\n".join([*names()[:60], "home budgeting"]) + "\n")
    call("skills", "import", "other.csv", "--run", "other")
    call("cluster", "--run", "other", "--plain")
    found = json.loads(call("skills", "diff", "other", "mine", "--format", "json"))
    near = {row["skill"]: row for row in found["only_a"]}["home_budgeting"]
    assert near["by"] == "embedding" and "budget" in near["nearest"] and near["likeness"] > 0.6
    assert found["summary"]["both"] + found["summary"]["only_a"] == found["summary"]["skills_a"]
