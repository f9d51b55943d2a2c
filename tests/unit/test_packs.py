"""Every shipped prompt pack loads, uses what it is given, and leaves nothing unfilled.

A pack of somebody's own is loaded when it can be used, and otherwise every mistake in it is named.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
import pytest
from click.testing import CliRunner, Result

from localism.cli.main import cli
from localism.errors import ConfigError
from localism.parsing.example import Example, split_example
from localism.prompting.packs import (
    OPTIONAL,
    TURN_VARIABLES,
    VARIABLES,
    Pack,
    examine,
    load_pack,
    pack_names,
    trial_values,
)

PACKS = pack_names()
KIND = {"name": "A certain type", "definition": "a certain definition"}


@pytest.fixture(params=PACKS)
def pack(request: pytest.FixtureRequest) -> Pack:
    return load_pack(request.param)


@pytest.fixture
def own_pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(load_pack("paper").folder, tmp_path / "own"))


def filled(pack: Pack, name: str, *skills: str, kind: object = KIND, **values: object) -> str:
    """A turn of the pack."""
    (turn,) = (turn for turn in pack.turns if turn.name == name)
    values = {"structured": turn.structured, **values}
    return pack.render(turn.template, skills=list(skills), query_type=kind, **values)


# ---- the packs that are shipped ------------------------------------------------------------


def test_the_packs_that_the_documents_name_are_shipped() -> None:
    assert {"compact", "lean", "paper"} <= set(PACKS)


def test_every_template_uses_every_value_that_it_is_given(pack: Pack) -> None:
    unused = {
        name: VARIABLES[name] - OPTIONAL - pack.variables[name]
        for name in pack.templates
        if name in VARIABLES
    }
    assert not {name: missing for name, missing in unused.items() if missing}
    first = pack.turns[0].template
    assert pack.variables[first] >= TURN_VARIABLES - {"structured"}


def test_every_template_renders_with_exactly_its_values(pack: Pack) -> None:
    for name in pack.templates:
        for values in trial_values(name):
            text = pack.render(name, **values)
            assert text.strip() and text == text.strip("\n")
            assert not re.search(r"\{[{%#]|[%#}]\}|None|Undefined", text)


def test_templates_of_lists_render_without_a_list_of_known_ones(pack: Pack) -> None:
    for name in ("topics", "skills", "query_types"):
        values = trial_values(name)[0]
        assert "first_known" in pack.render(name, **values)
        assert "first_known" not in pack.render(name, **values | {"known": []})


def test_turns_render_with_and_without_a_query_type(pack: Pack) -> None:
    first = pack.turns[0].name
    typed = filled(pack, first, "first_skill", "second_skill")
    assert "A certain type" in typed and "a certain definition" in typed
    assert "()" not in filled(pack, first, "a_b", kind={"name": "X", "definition": ""})
    for turn in pack.turns:
        without = filled(pack, turn.name, "first_skill", "second_skill", kind=None)
        assert "A certain type" not in without and "type" not in without.lower().split("skills")[-1]
        if turn.name == first:
            assert "ype:" not in without and "Type of" not in without
            assert all(skill in without for skill in ("first_skill", "second_skill"))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_skills_reads_naturally(pack: Pack, count: int) -> None:
    skills = [f"skill_number_{number}" for number in range(count)]
    for turn in pack.turns:
        text = filled(pack, turn.name, *skills)
        own = text.rsplit("Now write a new example.", 1)[-1]
        assert not re.search(r"\b(?:both|two|all \d+) (?:of the |of these )?skills\b", own)
        if count == 1:
            assert not re.search(r"\b(?:all|which) of (?:these|them)\b", own, re.I)
        assert all(skill in text for skill in skills) or turn is not pack.turns[0]


def test_the_embedded_teacher_still_reads_what_it_was_trained_on() -> None:
    pack = load_pack("compact")
    assert filled(pack, "draft", "brew_tea", "tell_stories") == (
        "Write an instruction that needs every skill, then a full response.\n"
        "Skills: brew_tea, tell_stories\nType: A certain type, a certain definition"
    )
    assert filled(pack, "critique", "brew_tea") == (
        "Review your draft. Which skills are covered, which are missing, is the form fine?"
    )
    sampling = [(t.name, t.sampling.temperature, t.sampling.max_tokens) for t in pack.turns]
    assert sampling == [("draft", 0.7, 256), ("critique", 0.0, 64), ("refine", 0.3, 256)]


def test_drafts_of_different_mixes_begin_alike_for_the_prefix_cache() -> None:
    pack = load_pack("paper")
    one = filled(pack, "draft", "a_b", "c_d")
    for skills in (["e_f", "g_h"], ["e_f"], ["e_f", "g_h", "i_j"]):
        other = filled(pack, "draft", *skills, kind={"name": "X", "definition": "y"})
        shared = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        assert shared > 0.98 * len(one)


def test_the_paper_pack_follows_the_papers_protocol() -> None:
    turns = load_pack("paper").turns
    assert [(turn.template, turn.only_if_cut_off, turn.has_example) for turn in turns] == [
        ("draft", False, True),
        ("rewrite", True, True),
        ("critique", False, False),
        ("refine", False, True),
        ("rewrite", True, True),
    ]
    assert len(load_pack("lean").turns) == 3


def worked_examples(prompt: str) -> list[tuple[str, str]]:
    """(skills, text) of each worked example in a draft prompt."""
    parts = re.split(r"^Skills: (.*)$", prompt, flags=re.M)
    return [
        (parts[i], re.split(r"^(?:Query type|Now write)", parts[i + 1], flags=re.M)[0])
        for i in range(1, len(parts) - 2, 2)
    ]


@pytest.mark.parametrize("kind", [KIND, None])
def test_worked_examples_of_the_paper_pack_pass_the_parser_and_its_own_rules(kind: Any) -> None:
    pack = load_pack("paper")
    worked = worked_examples(filled(pack, "draft", "x_y", kind=kind))
    assert len(worked) == 4
    for skills, text in worked:
        example = split_example(text, pack.instruction_marker, pack.response_marker)
        assert isinstance(example, Example), example
        assert 200 <= len(example.response.split()) <= 400
        assert "#" not in example.instruction + example.response
        assert len(skills.split(", ")) == 2
        for skill in skills.split(", "):
            assert skill not in text and skill.replace("_", " ") not in text.lower()
    assert not worked_examples(filled(load_pack("lean"), "draft", "x_y"))


def test_the_code_of_a_worked_example_prints_what_the_example_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompt = filled(load_pack("paper"), "draft", "x_y")
    wrong, right = re.findall(r"```python\n(.*?)```", prompt, re.S)
    names: dict[str, Any] = {}
    exec(wrong, names)
    assert capsys.readouterr().out == "Emma 0.4\nUlysses 1.9000000000000001\n"
    exec(wrong.splitlines()[0] + "\n" + right, names)
    assert capsys.readouterr().out == "Emma: 0.40\nKim: 0.90\nUlysses: 1.90\n"


def test_refined_examples_are_asked_for_as_json_by_one_key() -> None:
    for name in ("paper", "lean"):
        pack = load_pack(name)
        as_json = filled(pack, "refine", "a_b", structured=True)
        assert '{"instruction": "' in as_json and "###" not in as_json
        assert "JSON" not in filled(pack, "refine", "a_b", structured=False)


def test_labels_are_two_different_single_words(pack: Pack) -> None:
    for labels in (pack.judge_labels, pack.skill_labels):
        assert len(set(labels)) == 2 and all(label.isalpha() for label in labels)
    asked = pack.render("judge", **trial_values("judge")[0])
    assert all(label in asked for label in pack.judge_labels)
    asked = pack.render("shows_skill", **trial_values("shows_skill")[0])
    assert all(re.search(rf"\b{label}\b", asked) for label in pack.skill_labels)


def test_an_unfilled_placeholder_is_an_error_and_not_a_gap(pack: Pack) -> None:
    with pytest.raises(jinja2.UndefinedError):
        pack.render("judge", instruction="only this")


# ---- packs of one's own ----------------------------------------------------------------------


def changed(folder: Path, old: str, new: str, file: str = "pack.toml") -> Path:
    path = folder / file
    assert old in path.read_text(), old
    path.write_text(path.read_text().replace(old, new, 1))
    return folder


def mistakes(folder: Path) -> list[ConfigError]:
    pack, found = examine(folder)
    assert (pack is None) == bool(found)
    return found


REFINE = 'name = "refine"\n'
CRITIQUE = 'name = "critique"\nexample = false\n'


@pytest.mark.parametrize(
    ("old", "new", "problem", "key", "fix"),
    [
        ('when = "cut off"', 'wenn = "cut off"', "unknown key wenn", "number 2: wenn", "when"),
        ("[markers]", "[marker]", "unknown key marker", "[marker]", "markers"),
        ("[markers]", "[marker]", "markers is missing", "[markers]", "prompt-packs.md"),
        ("[judge]", "[judge]\nlabel = 1", "unknown key label", "[judge].label", "labels"),
        (
            'when = "cut off"',
            'when = "often"',
            "when cannot be",
            'when = "often"',
            '"always", "cut off"',
        ),
        (
            'when = "cut off"',
            'when = "cutoff"',
            "when cannot be",
            'when = "cutoff"',
            "mean cut off",
        ),
        ("max_tokens = 768", "max_tokens = 0", "at least 1", "number 3: max_tokens = 0", ""),
        (
            "max_tokens = 768",
            'max_tokens = "9"',
            "whole number",
            'max_tokens = "9"',
            "max_tokens = 9",
        ),
        ("max_tokens = 768", "", "max_tokens is missing", "number 3: max_tokens", "add it"),
        ("temperature = 0.7", "temperature = true", "a number", "temperature = true", ""),
        ("top_p = 0.95", "top_p = 1.5", "at most 1", "number 1: top_p = 1.5", ""),
        ("example = false", "example = 0", "true or false", "number 3: example = 0", ""),
        (REFINE, 'name = "draft"\n', "two turns are named draft", "number 4, 'draft'", "name"),
        (REFINE, 'name = "refine"\nexample = false\n', "may end with refine", "number 4", "last"),
        ('name = "draft"\n', 'name = "draft"\nwhen = "cut off"\n', "first turn", "'draft'", "drop"),
        (CRITIQUE, CRITIQUE + "structured = true\n", "is structured", "critique", "drop"),
        ('"### Instruction"', '"  "', "must not be empty", "[markers].instruction", ""),
        ('"### Instruction"', '"a\\nb"', "a heading is one line", "[markers].instruction", ""),
        ('"### Instruction"', '"### response"', "the same", "[markers].response", "differ"),
        ('["m", "M"]', '["m", "m"]', "the same", "[judge].labels = 'm', twice", "differ"),
        ('["m", "M"]', '["m"]', "too few items: 1", '[judge].labels = ["m"]', ""),
        ('["m", "M"]', "[]", "too few items: 0", "[judge].labels = []", ""),
        ('["m", "M"]', '["m", "M", "x"]', "too many items: 3", "[judge].labels", ""),
        ('["m", "M"]', '"mM"', "labels has to be a list", "[judge].labels", ""),
        ('["m", "M"]', '["first one", "M"]', "several words", 'labels = "first one"', ""),
        ("structured = true\ntemp", 'structured = "no"\ntemp', "true or false", "[extract]", ""),
        (REFINE, 'name = "polish"\n', "no template for turn polish", "pack.toml", "polish.txt"),
        (REFINE, REFINE + 'template = "judge"\n', "refine uses judge.txt", "pack.toml", "own"),
        (REFINE, REFINE + 'template = "../paper/refine"\n', "named after it", "number 4", ""),
        ("[markers]", "[markers", "not valid TOML", "line", "mend"),
    ],
)
def test_a_mistake_in_the_manifest_names_file_key_and_fix(
    own_pack: Path, old: str, new: str, problem: str, key: str, fix: str
) -> None:
    found = mistakes(changed(own_pack, old, new))
    (mistake,) = (m for m in found if problem in m.problem)
    assert f"{own_pack}/pack.toml" in mistake.where and key in mistake.where
    assert mistake.fix and fix in mistake.fix
    with pytest.raises(ConfigError):
        load_pack(str(own_pack))


def test_a_manifest_without_turns_is_refused(own_pack: Path) -> None:
    text = (own_pack / "pack.toml").read_text()
    without = re.sub(r"\[\[turns\]\].*?(?=\n\[judge\])", "", text, flags=re.S)
    (own_pack / "pack.toml").write_text(without)
    assert "turns is missing" in mistakes(own_pack)[0].problem
    (own_pack / "pack.toml").write_text("turns = 3\n" + without)
    assert "turns has to be a list" in mistakes(own_pack)[0].problem


@pytest.mark.parametrize(("old", "new", "problems"), [
    ("[markers]", "[markers", ["prompt pack manifest is not valid TOML"]),
    ("[markers]", "[marker]", ["unknown key marker", "markers is missing"]),
    ("[[turns]]", "[[turn]]", ["unknown key turn"]),
    ('template = "rewrite"', 'templat = "rewrite"', ["unknown key templat"]),
    ('name = "draft"', 'nmae = "draft"', ["unknown key nmae", "name is missing"]),
    ('["m", "M"]', '["m"]', ["labels has too few items: 1"]),
    ('["m", "M"]', "[]", ["labels has too few items: 0"]),
])  # fmt: skip
def test_a_mistake_in_the_manifest_brings_no_false_ones_with_it(
    own_pack: Path, old: str, new: str, problems: list[str]
) -> None:
    assert [mistake.problem for mistake in mistakes(changed(own_pack, old, new))] == problems


def test_mistakes_in_templates_are_found_beside_a_manifest_that_cannot_be_read(
    own_pack: Path,
) -> None:
    changed(own_pack, "[markers]", "[markers")
    (own_pack / "judge.txt").write_text("{{ mood }}")
    (own_pack / "draft.txt").write_text("{{ mood }}")
    (own_pack / "label.txt").unlink()
    (own_pack / "label.txt").mkdir()
    where = sorted(Path(mistake.where.split()[0]).name for mistake in mistakes(own_pack))
    assert where == ["draft.txt", "judge.txt", "label.txt", "pack.toml:"]


@pytest.mark.parametrize(
    ("file", "text", "problem", "part"),
    [
        ("draft.txt", "{{ skills }} {{ mood }}", "uses mood", "skills"),
        ("drfat.txt", "{{ skills }}", "drfat", "draft"),
        ("judge.txt", "{{ skills }}", "uses skills", "first"),
        ("draft.txt", "{{ skills", "does not parse", ""),
        ("draft.txt", "{{ skills | jion }}", "does not parse", "jion"),
        ("draft.txt", "{{ skills[1] }}", "cannot be filled", "no element 1"),
        ("draft.txt", "{{ query_type.name }} {{ skills }}", "cannot be filled", "None"),
        ("draft.txt", "{{ skills | sum }}", "cannot be filled", "unsupported"),
        ("draft.txt", "{{ skills.x.y }}", "cannot be filled", "x"),
        ("query_types.txt", "{# {{ count }} #}", "comes out empty", ""),
        ("draft.txt", "{% if skills | length > 1 %}{{ skills }}{% endif %}", "out empty", ""),
    ],
)
def test_a_mistake_in_a_template_names_file_and_fix(
    own_pack: Path, file: str, text: str, problem: str, part: str
) -> None:
    (own_pack / file).write_text(text)
    (mistake,) = mistakes(own_pack)
    assert problem in mistake.problem and str(own_pack / file) in mistake.where
    assert part in mistake.fix


def test_a_template_in_another_encoding_is_named(own_pack: Path) -> None:
    (own_pack / "label.txt").write_bytes("Überschrift {{ instruction }}".encode("latin-1"))
    (mistake,) = mistakes(own_pack)
    assert "UTF-8" in mistake.problem and "label.txt" in mistake.where


def test_a_missing_template_is_named(own_pack: Path) -> None:
    for name in ("refine.txt", "judge.txt"):
        (own_pack / name).unlink()
    text = " ".join(mistake.problem for mistake in mistakes(own_pack))
    assert "judge.txt" in text and "turn refine" in text


def test_a_pack_that_keeps_the_skills_to_itself_is_refused(own_pack: Path) -> None:
    for name in ("draft", "rewrite", "critique", "refine"):
        (own_pack / f"{name}.txt").write_text("Write something.")
    (mistake,) = mistakes(own_pack)
    assert "the skills" in mistake.problem


def test_turns_may_have_any_name_and_share_a_template(own_pack: Path) -> None:
    changed(own_pack, REFINE, 'name = "polish"\ntemplate = "refine"\nstructured = true\n')
    changed(own_pack, 'when = "cut off"', 'when = "always"')
    load_pack.cache_clear()
    pack = load_pack(str(own_pack))
    assert [turn.name for turn in pack.turns][3] == "polish"
    assert pack.turns[3].structured and "JSON" in filled(pack, "polish", "a_b")
    assert [turn.only_if_cut_off for turn in pack.turns] == [False, False, False, False, True]


def test_a_changed_word_changes_the_fingerprint(own_pack: Path) -> None:
    before = load_pack(str(own_pack)).fingerprint
    (own_pack / "draft.txt").write_text((own_pack / "draft.txt").read_text() + "!")
    load_pack.cache_clear()
    assert load_pack(str(own_pack)).fingerprint != before == load_pack("paper").fingerprint


# ---- the command -----------------------------------------------------------------------------


def prompts(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["prompts", *map(str, arguments)])


@pytest.mark.parametrize("name", ["list", "check", "show"])
def test_every_subcommand_has_help_with_two_examples(name: str) -> None:
    shown = prompts(name, "--help")
    assert shown.exit_code == 0
    assert len(re.findall(rf"^\s+localism prompts {name}\b", shown.output, re.M)) == 2


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_list_shows_every_pack_with_its_turns(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = prompts("list").output.splitlines()
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    assert [line.split()[0] for line in lines[2:] if line[0] != " "] == PACKS
    if width == 200:  # nothing is broken
        assert "draft, (rewrite_draft), critique, refine, (rewrite_refined)" in "".join(lines)


def test_check_says_what_a_pack_holds_and_what_it_is_good_for() -> None:
    text = prompts("check", "paper").output
    assert re.search(r"rewrite_draft +if cut off +rewrite\.txt +example", text)
    assert "domains" in text and "not for" not in text
    length = len(
        "".join(filled(load_pack("compact"), t.name, "a_b") for t in load_pack("compact").turns)
    )
    compact = prompts("check", "compact").output
    assert "not for domains" in compact and "### Instruction and ### Response" in compact
    shown = int(re.search(r"about ([\d,]+) characters", compact)[1].replace(",", ""))  # type: ignore[index]
    assert abs(shown - length) < 150


def test_check_shows_all_mistakes_three_lines_each(own_pack: Path) -> None:
    changed(own_pack, "temperature = 1.0", 'temperature = "hot"')
    changed(own_pack, 'when = "cut off"', 'whem = "cut off"')
    (own_pack / "label.txt").write_text("{{ mood }}")
    shown = prompts("check", own_pack)
    assert isinstance(shown.exception, ConfigError)  # main() prints it and exits with its code
    text = f"{shown.stderr}{shown.exception}"
    assert [line[:6] for line in text.splitlines() if line] == ["error:", "where:", "fix:  "] * 3
    for word in ("temperature", "whem", "mood"):
        assert word in text


def test_show_renders_the_conversation_with_an_example() -> None:
    text = prompts("show", "lean", "--skills", "brew_tea, tell_stories").output
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("---")] == [
        "--- draft",
        "--- critique",
        "--- refine",
    ]
    assert text.count("brew_tea, tell_stories") == 3 and "Advice on a decision" in text
    assert "Advice on a decision" not in prompts("show", "lean", "--no-query-type").output
    one = prompts("show", "compact", "--turn", "draft", "--k", "1", "--no-query-type").output
    assert one.splitlines()[-1] == "Skills: estimating_risk"
    three = prompts("show", "compact", "--turn", "draft", "--k", "3", "--no-query-type").output
    assert three.splitlines()[-1].count(",") == 2
    assert "which of these" not in one


def test_show_names_turns_and_templates_when_it_knows_no_such_one() -> None:
    assert "A certain topic." in prompts("show", "paper", "--turn", "skills").output
    wrong = prompts("show", "paper", "--turn", "darft").exception
    assert "rewrite_draft" in wrong.fix and "judge" in wrong.fix  # type: ignore[union-attr]
    assert "compact, lean, paper" in prompts("show", "papre").exception.fix  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["judge", "skills", "shows_skill", "junk"])
def test_a_template_that_does_not_say_what_it_is_about_is_refused(
    own_pack: Path, name: str
) -> None:
    (own_pack / f"{name}.txt").write_text("Hello.")
    with pytest.raises(ConfigError, match="no place for") as refused:
        load_pack(str(own_pack))
    assert f"{name}.txt" in refused.value.where
