"""Lists that teachers really write become items, and nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localism.parsing.lists import (
    Listed,
    json_listed,
    labels_with_reason,
    listed,
    says_nothing,
    without_thinking,
)
from localism.stages.extract import Item, most_agreed

COOKING = ["meal_planning", "knife skills", "food safety"]

FORMS = {
    "dots": "1. meal_planning\n2. knife skills\n3. food safety",
    "brackets": "1) meal_planning\n2) knife skills\n3) food safety",
    "both brackets": "(1) meal_planning\n(2) knife skills\n(3) food safety",
    "dashes after numbers": "1 - meal_planning\n2 - knife skills\n3 - food safety",
    "bold items, dots": "1. **meal_planning**.\n2. **knife skills**.\n3. *food safety*.",
    "bold numbers": "**1.** meal_planning\n**2.** knife skills\n**3.** food safety",
    "headings": "### 1. meal_planning\n### 2. knife skills\n### 3. food safety",
    "code": "1. `meal_planning`\n2. `knife skills`\n3. `food safety`",
    "quotes": "1. \"meal_planning\"\n2. “knife skills”\n3. 'food safety'",
    "indented": "   1. meal_planning\n   2. knife skills\n   3. food safety",
    "bullets": "- meal_planning\n- knife skills\n- food safety",
    "stars": "* meal_planning\n* knife skills\n* food safety",
    "dots as bullets": "• meal_planning\n• knife skills\n• food safety",
    "bare lines": "meal_planning\nknife skills\nfood safety",
    "commas": "meal_planning, knife skills, food safety.",
    "json": '["meal_planning", "knife skills", "food safety"]',
    "chatter": "Sure! Here are 3 skills:\n\n1. meal_planning\n2. knife skills\n3. food safety\n\n"
    "Let me know if you want more.",
    "chatter round bullets": "Here you go:\n- meal_planning\n- knife skills\n- food safety\nEnjoy!",
    "chatter round bare lines": "Here you go:\nmeal_planning\nknife skills\nfood safety\nEnjoy!",
    "explained by bullets": "1. meal_planning\n   - what to eat\n2. knife skills\n   - cutting\n"
    "3. food safety\n   - no germs",
    "heading over bullets": "1. Cooking skills:\n- meal_planning\n- knife skills\n- food safety",
    "blank lines": "1. meal_planning\n\n2. knife skills\n\n3. food safety\n",
    "windows": "1. meal_planning\r\n2. knife skills\r\n3. food safety\r\n",
    "thinking": "<think>\n1. travel\n</think>\n1. meal_planning\n2. knife skills\n3. food safety",
}


def names(text: str) -> list[str]:
    return [item.name for item in listed(text)]


def pairs(text: str) -> list[tuple[str, str | None]]:
    return [(item.name, item.definition) for item in listed(text)]


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_list_gives_the_same_items(text: str) -> None:
    assert names(text) == COOKING


@pytest.mark.parametrize("text", ["", "  \n\n", "None", "none.", "N/A", "<think>1. a\n2. b"])
def test_an_empty_reply_is_an_empty_list(text: str) -> None:
    assert listed(text) == []
    assert says_nothing(text)


def test_numbers_inside_a_sentence_are_no_list_markers() -> None:
    assert names("1. baking\n2.5 litres of milk\n10:30 is late") == ["baking"]


def test_verbatim_items_keep_what_the_teacher_wrote() -> None:
    assert listed("1. **Budgeting**: planning money.") == [
        Listed("**Budgeting**: planning money.", "Budgeting", "planning money")
    ]


ADVICE = [
    ("Advice", "personal words"),
    ("Day Plan", "one line for each day"),
]
DEFINED = {
    "plain": "1. Advice: personal words\n2. Day Plan: one line for each day",
    "dots": "1. Advice: personal words.\n2. Day Plan: one line for each day.",
    "bold": "1. **Advice**: personal words\n2. **Day Plan:** one line for each day",
    "dashes": "- Advice - personal words\n- Day Plan – one line for each day",
    "bold and dashes": "* **Advice** — personal words\n* **Day Plan** — one line for each day",
    "below": "1. **Advice**\n   personal words\n2. **Day Plan**:\n   one line for each day",
    "below as bullets": "1. Advice:\n   - Definition: personal words.\n"
    "2. Day Plan:\n   - Definition: one line for each day.",
    "chatter": "Of course.\n1. Advice: personal words\n2. Day Plan: one line for each day\nDone.",
}


@pytest.mark.parametrize("text", DEFINED.values(), ids=DEFINED.keys())
def test_every_form_of_definition_gives_the_same_pairs(text: str) -> None:
    assert pairs(text) == ADVICE


def test_a_name_without_definition_has_none_and_hyphens_stay() -> None:
    assert pairs("1. Follow-up\n2. Q&A: asked: answered") == [
        ("Follow-up", None),
        ("Q&A", "asked: answered"),
    ]


@pytest.mark.parametrize(
    ("text", "labels", "reason"),
    [
        ("plan_meals, track_expenses", ["plan_meals", "track_expenses"], None),
        ("plan_meals, reason: the week needs one", ["plan_meals"], "the week needs one"),
        ("1. plan_meals\n2. track_expenses", ["plan_meals", "track_expenses"], None),
        ("plan_meals\nReason: hungry.", ["plan_meals"], "hungry."),
        ("logical_reasoning", ["logical_reasoning"], None),
        ("", [], None),
    ],
)
def test_labels_come_with_their_reason(text: str, labels: list[str], reason: str | None) -> None:
    assert labels_with_reason(text) == (labels, reason)


def test_thinking_is_left_out_of_replies() -> None:
    assert without_thinking("<think>hm</think>yes") == "yes"
    assert without_thinking("hm</think>yes") == "yes"
    assert without_thinking("a <think> in the middle") == "a <think> in the middle"


@given(st.text(max_size=300) | st.text(alphabet='1.2) -*:\n abc<think>/`"', max_size=300))
def test_no_text_breaks_the_parsers(text: str) -> None:
    assert all(item.raw.strip() for item in listed(text))
    assert all(item.raw for item in json_listed(text) or ())
    labels_with_reason(text)


WHOLE = '{"items": [{"name": "plan_meals", "definition": "Plan a week."}, {"name": "**bake**"}]}'


def test_json_lists_are_read_with_or_without_words_around_them() -> None:
    items = [
        Listed("plan_meals", "plan_meals", "Plan a week"),
        Listed("**bake**", "bake", None),
    ]
    for text in (WHOLE, f"Sure!\n```json\n{WHOLE}\n```", f"<think>[1]</think>{WHOLE}"):
        assert json_listed(text) == items
    assert json_listed('["plan_meals", "bake"]') == [
        Listed("plan_meals", "plan_meals", None),
        Listed("bake", "bake", None),
    ]
    assert json_listed("1. plan_meals") is None


def test_every_cut_through_a_json_list_keeps_what_was_whole() -> None:
    for end in range(len(WHOLE)):
        found = json_listed(WHOLE[:end])
        names = [item.name for item in found or () if item.name]
        complete = WHOLE[:end].count("}")
        assert names == ["plan_meals", "bake"][: min(complete, 2)]


@pytest.mark.parametrize("item", ["3", "null", "[]", '{"definition": "x"}', '{"name": 7}'])
def test_json_items_without_a_name_are_kept_as_unusable(item: str) -> None:
    assert json_listed(f"[{item}]") == [Listed(item, "", None)]


def test_what_most_replies_agree_on_is_kept_first():
    def items(turn: str, *names: str) -> list[Item]:
        return [Item(turn, n, name, name, None, name, None) for n, name in enumerate(names)]

    replies = items("a", "odd", "cook", "plan") + items("b", "plan", "cook") + items("c", "plan")
    assert list(most_agreed(replies, 2)) == ["plan", "cook"]
    assert most_agreed(replies, 2)["cook"].turn_id == "a"
    assert list(most_agreed(replies, 9)) == ["plan", "cook", "odd"]
