"""SDA's lists against a real engine: structured output, domains, taxonomies, retries."""

import json
import shutil
from pathlib import Path

import pytest
from engines import NewContext, embedded_config

from localism.config_checks import Origin, file_mistakes
from localism.context import Context
from localism.errors import ConfigError, StageError
from localism.parsing.lists import json_listed
from localism.prompting.packs import load_pack
from localism.stages import extract

pytestmark = pytest.mark.component

SMALL = {"topics": 3, "skills_per_topic": 3, "query_types": 2, "samples": 2, "max_rounds": 2}


def own_pack(folder: Path, structured: bool = False, **appended: str) -> str:
    """The compact pack with text behind some templates, and perhaps with structured lists."""
    shutil.copytree(load_pack("compact").folder, folder)
    for name, text in appended.items():
        path = folder / f"{name}.txt"
        path.write_text(path.read_text() + text)
    if structured:
        manifest = folder / "pack.toml"
        manifest.write_text(
            manifest.read_text().replace("[extract]", "[extract]\nstructured = true")
        )
    return str(folder)


def prompts(context: Context, template: str) -> list[str]:
    rows = context.store.query(
        "SELECT DISTINCT prompt FROM turn WHERE template = ? ORDER BY prompt", [template]
    )
    return [row["prompt"] for row in rows]


def test_structured_lists_are_json_however_little_the_teacher_knows_of_it(
    new_context: NewContext, teacher, tmp_path: Path
) -> None:
    pack = own_pack(tmp_path / "own", structured=True)
    section = SMALL | {"query_types": 1, "retries": 0}
    config = embedded_config(**teacher.endpoints, prompts={"pack": pack}, extract=section)
    context = new_context(config)
    try:
        extract.run(context)
    except StageError:
        pass  # the miniature was not trained on JSON: what it writes inside may be unusable
    turns = context.store.query("SELECT * FROM turn")
    assert len(turns) >= 2
    for turn in turns:
        fields = {"name"} if turn["template"] == "topics" else {"name", "definition"}
        listed = json_listed(turn["text"])
        assert listed is not None, turn["text"]
        if turn["finish_reason"] == "stop":
            items = json.loads(turn["text"])["items"]
            assert 1 <= len(items) <= 20 and all(item.keys() == fields for item in items)


def test_a_domain_is_in_every_prompt_that_has_a_place_for_it(
    new_context: NewContext, teacher, tmp_path: Path
) -> None:
    place = "{% if domain %}\nDomain: {{ domain }}\n{% endif %}"
    pack = own_pack(tmp_path / "own", topics=place, skills=place, query_types=place)
    section = SMALL | {"domain": "safety"}
    config = embedded_config(**teacher.endpoints, prompts={"pack": pack}, extract=section)
    context = new_context(config)
    extract.run(context)
    for template in ("topics", "skills", "query_types"):
        assert prompts(context, template)
        assert all("Domain: safety" in prompt for prompt in prompts(context, template))


def test_a_domain_that_the_pack_would_ignore_is_refused() -> None:
    config = embedded_config(judge={"kind": "likelihood"}, extract={"domain": "safety"})
    (refused,) = file_mistakes(config, Origin("models.toml"))["prompts.templates"]
    assert "no place for a domain" in refused.problem
    assert "[extract].domain" in refused.where


def test_topics_of_a_file_are_not_asked_for(
    new_context: NewContext, teacher, tmp_path: Path
) -> None:
    path = tmp_path / "topics.txt"
    path.write_text("# ours\nhealth\n\nwork and study\nHealth\n")
    section = SMALL | {"taxonomy": str(path)}
    context = new_context(embedded_config(**teacher.endpoints, extract=section))
    extract.run(context)
    topics = context.store.query("SELECT name, turn_id FROM topic ORDER BY ordinal")
    assert [row["name"] for row in topics] == ["health", "work and study"]
    assert all(row["turn_id"] is None for row in topics)
    assert not prompts(context, "topics")
    assert {"health", "work and study"} == {
        prompt.split("the topic ")[1].split(".")[0] for prompt in prompts(context, "skills")
    }


def test_a_taxonomy_gives_topics_their_place_and_asks_for_those_that_a_subject_lacks(
    new_context: NewContext, teacher, tmp_path: Path
) -> None:
    path = tmp_path / "fields.json"
    path.write_text(json.dumps({"Home": {"Rooms": ["kitchen"], "People": []}, "Life": ["Money"]}))
    pack = own_pack(tmp_path / "own", topics="\nPart of {{ subject }} in {{ field }}.")
    section = SMALL | {"taxonomy": str(path), "topics": 2}
    config = embedded_config(**teacher.endpoints, prompts={"pack": pack}, extract=section)
    context = new_context(config)
    extract.run(context)
    topics = context.store.query("FROM topic ORDER BY ordinal")
    assert (topics[0]["field"], topics[0]["subject"], topics[0]["name"]) == (
        "Home", "Rooms", "kitchen",
    )  # fmt: skip
    asked = {(row["field"], row["subject"]) for row in topics if row["turn_id"]}
    assert asked <= {("Home", "People"), ("Life", "Money")} and asked
    assert all("Rooms" not in prompt for prompt in prompts(context, "topics"))


def test_a_subject_without_topics_needs_a_pack_that_can_ask(
    new_context: NewContext, tmp_path: Path
) -> None:
    path = tmp_path / "fields.toml"
    path.write_text('Home = ["People"]\n')
    context = new_context(embedded_config(extract={"taxonomy": str(path)}))
    with pytest.raises(ConfigError, match="topics of a subject"):
        extract.run(context)


def test_a_reply_without_a_usable_item_is_asked_again_and_then_given_up(
    new_context: NewContext, teacher, tmp_path: Path
) -> None:
    # A question that the miniature answers with a text instead of a list.
    pack = own_pack(tmp_path / "own")
    Path(pack, "topics.txt").write_text(
        "How do I plan meals?{{ count }}{{ known | join }}{{ domain }}{{ field }}{{ subject }}"
    )
    section = SMALL | {"retries": 2, "max_rounds": 1}
    config = embedded_config(**teacher.endpoints, prompts={"pack": pack}, extract=section)
    context = new_context(config)
    try:
        extract.run(context)
    except StageError as failed:
        assert "the teacher listed no topics" in failed.problem
    turns = context.store.query("SELECT sample, text FROM turn WHERE template = 'topics'")
    unusable = [
        turn for turn in turns
        if all(i.key is None for i in extract.read_items(reply_of(turn["text"]), ""))
    ]  # fmt: skip
    # Two samples, each asked at most three times, and again only after an unusable reply.
    assert len(turns) == 2 + sum(turn["sample"] < 4 for turn in unusable)
    assert len({turn["sample"] for turn in turns}) == len(turns) <= 6


def reply_of(text: str):
    from localism.records import Reply

    return Reply("t", text, "stop", 0, 0, False)
