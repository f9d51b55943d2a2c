"""A taxonomy is read in the format that its suffix names, and anything else is refused."""

import json
from pathlib import Path

import pytest

from localism import models_toml
from localism.errors import ConfigError
from localism.prompting.packs import packaged
from localism.taxonomy import FORMS, Branch, read_taxonomy

TREE = {"Medicine": {"Paediatrics": ["vaccination"], "Surgery": []}, "Law": ["contracts"]}
BRANCHES = [
    Branch("Medicine", "Paediatrics", ("vaccination",)),
    Branch("Medicine", "Surgery", ()),
    Branch("Law", "contracts", ()),
]
TOML = """Law = ["contracts"]
[Medicine]
Paediatrics = ["vaccination"]
Surgery = []
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["topics.txt", "topics", "TOPICS.TXT"])
def test_text_is_a_topic_a_line(tmp_path: Path, name: str, mark: str) -> None:
    path = written(tmp_path, name, f"{mark}health\n# ours\n\n  work and study\n")
    assert read_taxonomy(path) == [Branch("", "", ("health", "work and study"))]


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    assert read_taxonomy(written(tmp_path, "a.json", json.dumps(TREE))) == BRANCHES
    read = read_taxonomy(written(tmp_path, "a.TOML", TOML))
    assert sorted(read) == sorted(BRANCHES)


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.YML", "a.csv", "a.jsonl", "a.xlsx"])
def test_a_format_that_is_not_read_is_refused_and_not_taken_for_text(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, name, "Medicine:\n  - Surgery\n")
    with pytest.raises(ConfigError) as refused:
        read_taxonomy(path)
    assert f"{path}: {path.suffix.lower()} is none" in refused.value.where
    assert all(form in refused.value.fix for form in FORMS)


@pytest.mark.parametrize(("name", "text", "problem"), [
    ("a.json", "[1, 2]", "not a table of fields"),
    ("a.json", "{", "line 1"),
    ("a.json", "[" * 100_000, "recursion"),
    ("a.json", '{"Law": "contracts"}', "Law: neither a table"),
    ("a.json", '{"Law": {}, "Medicine": []}', "no subject in it"),
    ("a.json", '{"Law": {" ": ["x"]}}', "Law >  : not a list of names"),
    ("a.json", '{"Law": ["\\ud800"]}', "surrogates"),
    ("a.json", '{"Law": {"Contracts": [3]}}', "Law > Contracts: not a list of names"),
    ("a.toml", "Law = ", "Invalid value"),
    ("a.txt", "# nothing\n\n", "no topic in it"),
])  # fmt: skip
def test_a_mistake_is_named_before_a_model_is_loaded(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    path = written(tmp_path, name, text)
    with pytest.raises(ConfigError, match="taxonomy cannot be read") as refused:
        models_toml.load(packaged("models.toml"), [f"extract.taxonomy={path}"])
    assert problem in refused.value.where and str(path) in refused.value.where
