"""The world behind the embedded models: splits, wording, and flaws that are what they say."""

from random import Random

import pytest

from localism.embedded.conversation import mixed_skills
from localism.embedded.flaws import FLAWS, draw_flawed
from localism.embedded.grammar import draw_answer, draw_example, draw_skills, split_of
from localism.embedded.tasks import MIXES, draw_turns, plain_document
from localism.embedded.world import NOUNS, QUERY_TYPES, SKILLS, TOPICS, VERBS
from localism.skill_names import mentions, normalise


def test_every_topic_has_ten_skills_of_known_verbs_and_none_is_listed_twice() -> None:
    assert {len(topic.skills) for topic in TOPICS.values()} == {10}
    assert len(set(SKILLS)) == len(SKILLS) == 240
    assert {skill.split("_")[0] for skill in SKILLS} == set(VERBS)
    assert all(normalise(skill).text == skill for skill in SKILLS)
    assert all(noun.endswith(("s", "es")) for noun in NOUNS)


@pytest.mark.parametrize("query_type", sorted(QUERY_TYPES))
def test_instruction_and_answer_mention_every_skill(query_type: str) -> None:
    rng = Random(query_type)
    for count in (1, 2, 3):
        for _ in range(30):
            skills = draw_skills(rng, count, new_share=0.5)
            example = draw_example(rng, skills, query_type)
            for skill in skills:
                assert mentions(skill, example.instruction), (skill, example.instruction)
                assert mentions(skill, example.answer.text()), (skill, example.answer.text())


def test_training_draws_no_pair_or_combination_of_dev_and_test() -> None:
    rng = Random(0)
    assert {split_of(mixed_skills(rng)) for _ in range(500)} == {"train"}
    assert split_of(draw_skills(rng, 2, "test")) == "test"
    assert split_of(draw_skills(rng, 2, "dev", 1.0)) == "dev"


@pytest.mark.parametrize("kind", ["missing", "swapped", "near_noun", "near_verb", "off_topic"])
def test_a_flaw_of_relevance_leaves_out_at_least_one_skill(kind: str) -> None:
    rng = Random(kind)
    for _ in range(60):
        example = draw_example(rng, draw_skills(rng, 2))
        text = draw_flawed(rng, example, kind).text
        assert not all(mentions(skill, text) for skill in example.skills), text


def test_the_same_seed_gives_the_same_texts() -> None:
    def texts() -> list[str]:
        rng = Random(7)
        turns = [draw_turns(rng, mix, 5.0) for mix in MIXES for _ in range(40)]
        flawed = [draw_flawed(rng, draw_example(rng, SKILLS[:1]), kind).text for kind in FLAWS]
        return [repr(turns), *flawed, plain_document(rng)]

    assert texts() == texts()


def test_a_day_plan_names_each_day_once_and_in_order() -> None:
    rng = Random(3)
    days = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
    for _ in range(40):
        example = draw_example(rng, draw_skills(rng, 2), "day_plan")
        answer = draw_answer(rng, example.skills, "day_plan", example.answer.scene)
        named = [line.split(":")[0] for line in answer.text().split("\n") if ": " in line]
        assert named == sorted(set(named), key=days.index)
