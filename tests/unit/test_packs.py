"""Every shipped prompt pack loads, uses what it is given, and leaves nothing unfilled."""

import re
import shutil
from pathlib import Path

import jinja2
import jinja2.meta
import pytest

from localism.errors import ConfigError
from localism.parse_example import Example, split_example
from localism.prompts import OPTIONAL, VARIABLES, Pack, load_pack, packaged

PACKS = sorted(path.parent.name for path in packaged("prompts").glob("*/pack.toml"))
# A pack may let these turns do without the skills: the conversation has them.
MAY_BE_UNUSED = {"critique", "refine"}
VALUES = {
    "count": 7,
    "known": ["Known one", "Known two"],
    "topic": "A certain topic",
    "domain": "a certain domain",
    "field": "A certain field",
    "subject": "a certain subject",
    "members": ["first_skill", "second_skill"],
    "choices": ["first_skill", "second_skill"],
    "instruction": "A certain instruction?",
    "response": "A certain response.",
    "skill": "a_certain_skill",
    "skills": ["first_skill", "second_skill"],
    "query_type": {"name": "A certain type", "definition": "a certain definition"},
    "first": "The first answer.",
    "second": "The second answer.",
}


def placeholders(pack: Pack, template: str) -> set[str]:
    tree = jinja2.Environment().parse((pack.folder / f"{template}.txt").read_text())
    return jinja2.meta.find_undeclared_variables(tree)


@pytest.fixture(params=PACKS)
def pack(request: pytest.FixtureRequest) -> Pack:
    return load_pack(request.param)


@pytest.fixture
def own_pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(load_pack("paper").folder, tmp_path / "own"))


def test_the_packs_that_the_documents_name_are_shipped() -> None:
    assert {"compact", "paper"} <= set(PACKS)


def test_every_template_uses_every_value_that_it_is_given(pack: Pack) -> None:
    unused = {
        name: VARIABLES[name] - OPTIONAL - placeholders(pack, name)
        for name in pack.templates
        if name not in MAY_BE_UNUSED
    }
    assert not {name: missing for name, missing in unused.items() if missing}


def test_every_template_renders_with_exactly_its_values(pack: Pack) -> None:
    for name in pack.templates:
        text = pack.render(name, **{key: VALUES[key] for key in VARIABLES[name]})
        assert text.strip() == text.strip("\n") and text
        assert not re.search(r"\{[{%#]|[%#}]\}|None|Undefined", text)


def test_templates_of_lists_render_without_a_list_of_known_ones(pack: Pack) -> None:
    for name in ("topics", "skills", "query_types"):
        values = {key: VALUES[key] for key in VARIABLES[name]} | {"known": []}
        assert "Known" not in pack.render(name, **values)
        assert "Known one" in pack.render(name, **values | {"known": VALUES["known"]})


@pytest.mark.parametrize("name", ["draft", "critique", "refine"])
def test_turns_render_with_and_without_a_query_type(pack: Pack, name: str) -> None:
    with_type = pack.render(name, skills=VALUES["skills"], query_type=VALUES["query_type"])
    without = pack.render(name, skills=VALUES["skills"], query_type=None)
    assert "A certain type" not in without
    if name == "draft":
        assert "A certain type" in with_type and "a certain definition" in with_type
        assert all(skill in without for skill in ("first_skill", "second_skill"))
        assert "ype:" not in without


def test_an_unfilled_placeholder_is_an_error_and_not_a_gap(pack: Pack) -> None:
    with pytest.raises(jinja2.UndefinedError):
        pack.render("judge", instruction="only this")


def test_drafts_of_different_mixes_begin_alike_for_the_prefix_cache() -> None:
    pack = load_pack("paper")
    one = pack.render("draft", skills=["a_b", "c_d"], query_type=VALUES["query_type"])
    other = pack.render("draft", skills=["e_f", "g_h"], query_type={"name": "X", "definition": "y"})
    shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert shared > 0.95 * len(one)


def test_worked_examples_of_the_paper_pack_pass_the_parser_and_its_own_rules() -> None:
    pack = load_pack("paper")
    prompt = pack.render("draft", skills=["x_y"], query_type=None)
    parts = re.split(r"^Skills: (.*)$", prompt, flags=re.M)
    worked = [(parts[i], parts[i + 1]) for i in range(1, len(parts) - 2, 2)]
    assert len(worked) == 2
    for skills, text in worked:
        text = text.split("\nNow write a new example.")[0]
        example = split_example(text, pack.instruction_marker, pack.response_marker)
        assert isinstance(example, Example), example
        assert 150 <= len(example.response.split()) <= 500
        assert "#" not in example.instruction + example.response
        for skill in skills.split(", "):
            assert skill not in text and skill.replace("_", " ") not in text.lower()


def test_labels_are_two_different_single_words(pack: Pack) -> None:
    for labels in (pack.judge_labels, pack.skill_labels):
        assert len(set(labels)) == 2 and all(label.isalpha() for label in labels)
    assert all(label in pack.render("judge", **VALUES) for label in pack.judge_labels)
    asked = pack.render("shows_skill", **VALUES)
    assert all(label in asked for label in pack.skill_labels)


def test_a_placeholder_that_nothing_fills_is_refused(own_pack: Path) -> None:
    (own_pack / "draft.txt").write_text("{{ skills }} {{ query_type }} {{ mood }}")
    with pytest.raises(ConfigError, match="mood"):
        load_pack(str(own_pack))


def test_a_template_that_nothing_uses_is_refused(own_pack: Path) -> None:
    (own_pack / "drfat.txt").write_text("{{ skills }}")
    with pytest.raises(ConfigError, match="drfat"):
        load_pack(str(own_pack))


def test_a_missing_template_is_named(own_pack: Path) -> None:
    (own_pack / "refine.txt").unlink()
    with pytest.raises(ConfigError, match="refine.txt"):
        load_pack(str(own_pack))


def test_a_turn_without_template_is_named(own_pack: Path) -> None:
    manifest = own_pack / "pack.toml"
    manifest.write_text(manifest.read_text().replace('name = "critique"', 'name = "praise"'))
    with pytest.raises(ConfigError, match="praise"):
        load_pack(str(own_pack))


def test_a_changed_word_changes_the_fingerprint(own_pack: Path) -> None:
    before = load_pack(str(own_pack)).fingerprint
    (own_pack / "draft.txt").write_text((own_pack / "draft.txt").read_text() + "!")
    load_pack.cache_clear()
    assert load_pack(str(own_pack)).fingerprint != before == load_pack("paper").fingerprint
