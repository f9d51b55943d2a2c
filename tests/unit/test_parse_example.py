"""Replies as real teachers write them -> instruction and response, or the reason why not.

Those of tests/data/hostile_replies.jsonl were written by hand, one JSON object a line: id, what,
reply, earlier (the instruction of an earlier turn), expect (both parts, or the reason).
"""

import json
import re
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localism.parsing.example import Example, Reason, Unparsed, split_example
from localism.parsing.fences import blank_code
from localism.parsing.headings import has_heading
from localism.parsing.structured import an_example

CORPUS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "hostile_replies.jsonl")
    .read_text()
    .split("\n")
    if line
]

ASKED = "How do I keep basil alive indoors?"
ANSWERED = "Give it six hours of light and water it when the top dries."
EARLIER = "Why does my basil die?"

# (name, reply, (instruction, response) or reason). No earlier turn is known unless said below.
REPLIES: list[tuple[str, str, tuple[str, str] | Reason]] = [
    # -- headings in other dress
    ("as asked", f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}", (ASKED, ANSWERED)),
    ("colons", f"### Instruction:\n{ASKED}\n\n### Response:\n{ANSWERED}", (ASKED, ANSWERED)),
    ("same line", f"### Instruction: {ASKED}\n### Response: {ANSWERED}", (ASKED, ANSWERED)),
    ("level 2", f"## Instruction\n{ASKED}\n## Response\n{ANSWERED}", (ASKED, ANSWERED)),
    ("level 1 capitals", f"# INSTRUCTION\n{ASKED}\n# RESPONSE\n{ANSWERED}", (ASKED, ANSWERED)),
    ("no space", f"###Instruction\n{ASKED}\n###Response\n{ANSWERED}", (ASKED, ANSWERED)),
    (
        "level 4 closed",
        f"#### Instruction ####\n{ASKED}\n#### Response ####\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    ("levels differ", f"### Instruction\n{ASKED}\n## Response\n{ANSWERED}", (ASKED, ANSWERED)),
    (
        "bold heading",
        f"### **Instruction**\n{ASKED}\n### **Response:**\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    ("bold", f"**Instruction**\n{ASKED}\n\n**Response**\n{ANSWERED}", (ASKED, ANSWERED)),
    (
        "bold, colon inside",
        f"**Instruction:** {ASKED}\n\n**Response:** {ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "bold, colon outside",
        f"**Instruction**: {ASKED}\n**Response**: {ANSWERED}",
        (ASKED, ANSWERED),
    ),
    ("underscores", f"__Instruction:__ {ASKED}\n__Response:__ {ANSWERED}", (ASKED, ANSWERED)),
    ("bold italics", f"***Instruction:*** {ASKED}\n***Response:*** {ANSWERED}", (ASKED, ANSWERED)),
    ("plain", f"Instruction: {ASKED}\n\nResponse: {ANSWERED}", (ASKED, ANSWERED)),
    ("plain, lower case", f"instruction: {ASKED}\nresponse: {ANSWERED}", (ASKED, ANSWERED)),
    ("mixed dress", f"Instruction: {ASKED}\n\n### Response\n{ANSWERED}", (ASKED, ANSWERED)),
    ("numbered", f"1. **Instruction:** {ASKED}\n2. **Response:** {ANSWERED}", (ASKED, ANSWERED)),
    (
        "underlined",
        f"Instruction\n-----------\n{ASKED}\n\nResponse\n--------\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    ("bare words", f"Instruction\n{ASKED}\n\nResponse\n{ANSWERED}", (ASKED, ANSWERED)),
    (
        "tags",
        f"<instruction>\n{ASKED}\n</instruction>\n<response>\n{ANSWERED}\n</response>",
        (ASKED, ANSWERED),
    ),
    (
        "tags on one line",
        f"<instruction>{ASKED}</instruction>\n<response>{ANSWERED}</response>",
        (ASKED, ANSWERED),
    ),
    ("brackets", f"[Instruction]\n{ASKED}\n[Response]\n{ANSWERED}", (ASKED, ANSWERED)),
    ("full-width colon", f"Instruction：{ASKED}\nResponse：{ANSWERED}", (ASKED, ANSWERED)),
    (
        "carriage returns",
        f"### Instruction\r\n{ASKED}\r\n### Response\r\n{ANSWERED}\r\n",
        (ASKED, ANSWERED),
    ),
    (
        "byte order mark",
        f"\ufeff### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "said twice",
        f"### Instruction\n\n**Instruction:** {ASKED}\n\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    # -- other words
    ("query", f"### Query\n{ASKED}\n### Response\n{ANSWERED}", (ASKED, ANSWERED)),
    ("query and answer", f"**User Query:** {ASKED}\n\n**Answer:** {ANSWERED}", (ASKED, ANSWERED)),
    ("question", f"Question: {ASKED}\nAnswer: {ANSWERED}", (ASKED, ANSWERED)),
    (
        "refined",
        f"### Refined Instruction\n{ASKED}\n### Refined Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "refined in brackets",
        f"### Instruction (refined)\n{ASKED}\n### Response (refined)\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    ("roles", f"User: {ASKED}\nAssistant: {ANSWERED}", (ASKED, ANSWERED)),
    # -- around the parts
    (
        "preamble",
        f"Sure, here is an example.\n\n### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "critique first",
        "**Strengths:** clear.\n**Weaknesses:** the response: too general.\n\n"
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "bold recap before headings",
        "**Instruction:** is clear.\n**Response:** lacks numbers.\n\n"
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "rules between",
        f"---\n### Instruction\n{ASKED}\n\n---\n\n### Response\n\n{ANSWERED}\n\n---",
        (ASKED, ANSWERED),
    ),
    (
        "lead-ins",
        f"### Instruction\nHere is the refined instruction:\n{ASKED}\n### Response\n"
        f"Here's the improved response:\n\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "lead-in of the answer stays",
        f"### Instruction\n{ASKED}\n### Response\nHere's a plan:\n{ANSWERED}",
        (ASKED, f"Here's a plan:\n{ANSWERED}"),
    ),
    ("quotes", f'### Instruction\n"{ASKED}"\n### Response\n{ANSWERED}', (ASKED, ANSWERED)),
    ("curly quotes", f"### Instruction\n“{ASKED}”\n### Response\n{ANSWERED}", (ASKED, ANSWERED)),
    ("bold quotes", f'### Instruction\n**"{ASKED}"**\n### Response\n{ANSWERED}', (ASKED, ANSWERED)),
    (
        "quotes inside stay",
        '### Instruction\n"Yes" or "no"\n### Response\nIt depends.',
        ('"Yes" or "no"', "It depends."),
    ),
    (
        "quote at the start stays",
        '### Instruction\n"Basil" keeps dying. Why?\n### Response\nCold.',
        ('"Basil" keeps dying. Why?', "Cold."),
    ),
    (
        "block quote",
        "### Instruction\n> My basil dies.\n> Why?\n### Response\nIt is cold.",
        ("My basil dies.\nWhy?", "It is cold."),
    ),
    (
        "bold instruction",
        f"### Instruction\n**{ASKED}**\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "bold words stay",
        "### Instruction\n**Basil** or **mint**\n### Response\nMint.",
        ("**Basil** or **mint**", "Mint."),
    ),
    (
        "several paragraphs",
        "### Instruction\nOne.\n\nTwo.\n### Response\nA.\n\n- b\n- c",
        ("One.\n\nTwo.", "A.\n\n- b\n- c"),
    ),
    # -- remarks to whoever ordered the example
    (
        "remark on skills",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n\n---\n\n"
        "This response combines both skills with concrete figures.",
        (ASKED, ANSWERED),
    ),
    (
        "remark in brackets",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n\n"
        "(Note: the refined instruction now names a window.)",
        (ASKED, ANSWERED),
    ),
    (
        "offer to rework",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n\n"
        "Let me know if you'd like another version of this example!",
        (ASKED, ANSWERED),
    ),
    (
        "word count",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n\n*(Word count: 212)*",
        (ASKED, ANSWERED),
    ),
    (
        "end of response",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n\n[End of response]",
        (ASKED, ANSWERED),
    ),
    (
        "closing words to the asker stay",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n\n"
        "Let me know if you have a darker room.",
        (ASKED, f"{ANSWERED}\n\nLet me know if you have a darker room."),
    ),
    (
        "a closing that speaks of skills stays",
        f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}"
        "\n\nThe more you use both skills, the greener it grows.",
        (ASKED, f"{ANSWERED}\n\nThe more you use both skills, the greener it grows."),
    ),
    # -- content that looks like headings
    (
        "bold answer in a response",
        f"### Instruction\n{ASKED}\n### Response\nThey ask: why?\n\n**Answer:** say it is cold.",
        (ASKED, "They ask: why?\n\n**Answer:** say it is cold."),
    ),
    (
        "plain pair in a response",
        f"### Instruction\n{ASKED}\n### Response\nQuestion: light?\nAnswer: six hours.",
        (ASKED, "Question: light?\nAnswer: six hours."),
    ),
    (
        "plain reply in an instruction",
        f"### Instruction\nMend my mail. Response: hi\nReply: bye\n### Response\n{ANSWERED}",
        ("Mend my mail. Response: hi\nReply: bye", ANSWERED),
    ),
    (
        "heading with more words",
        f"### Instruction\n{ASKED}\n### Response\nFirst.\n\n### Response to frost\nSecond.",
        (ASKED, "First.\n\n### Response to frost\nSecond."),
    ),
    (
        "fence in the response",
        f"### Instruction\n{ASKED}\n### Response\nWrite:\n```\n### Response\n```\nDone.",
        (ASKED, "Write:\n```\n### Response\n```\nDone."),
    ),
    (
        "fence in the instruction",
        f"### Instruction\nWhat is this?\n~~~\n### Response\n~~~\n### Response\n{ANSWERED}",
        ("What is this?\n~~~\n### Response\n~~~", ANSWERED),
    ),
    (
        "word that starts alike",
        "### Instruction\nGrade it.\n### Response\n### Responses\nGood.",
        ("Grade it.", "### Responses\nGood."),
    ),
    # -- the whole in a fence
    (
        "fenced",
        f"```markdown\n### Instruction\n{ASKED}\n### Response\n{ANSWERED}\n```",
        (ASKED, ANSWERED),
    ),
    (
        "fenced after a preamble",
        f"Here it is:\n\n```\n### Instruction\n{ASKED}\n### Response\n"
        f"{ANSWERED}\n```\n\nI hope it helps.",
        (ASKED, ANSWERED),
    ),
    (
        "fence in a fence",
        f"```\n### Instruction\n{ASKED}\n### Response\nRun:\n```sh\nls\n```\nDone.\n```",
        (ASKED, "Run:\n```sh\nls\n```\nDone."),
    ),
    (
        "two fences",
        f"```\n### Instruction\n{ASKED}\n```\n\n```\n### Response\n{ANSWERED}\n```",
        (ASKED, ANSWERED),
    ),
    (
        "each body fenced",
        f"### Instruction\n```\n{ASKED}\n```\n### Response\n```text\n{ANSWERED}\n```",
        (ASKED, ANSWERED),
    ),
    (
        "code as response stays",
        "### Instruction\nPrint one.\n### Response\n```python\nprint(1)\n```",
        ("Print one.", "```python\nprint(1)\n```"),
    ),
    # -- thinking
    (
        "thinking",
        f"<think>\n### Instruction\nno\n### Response\nno\n</think>\n\n### Instruction\n"
        f"{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "thinking, opened in the prompt",
        f"Let me see. ### Response\n</think>\n### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "two thoughts",
        f"<think>a</think>\n<think>b</think>\n### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        (ASKED, ANSWERED),
    ),
    (
        "a tag as code in the response stays",
        f"### Instruction\n{ASKED}\n### Response\nUse `<think>` and `</think>`.",
        (ASKED, "Use `<think>` and `</think>`."),
    ),
    # -- other languages
    (
        "content in Japanese",
        "### Instruction\nバジルの育て方は？\n### Response\n日に当てる。",
        ("バジルの育て方は？", "日に当てる。"),
    ),
    (
        "content in Arabic",
        "### Instruction\nكيف أزرع الريحان؟\n### Response\nبالشمس.",
        ("كيف أزرع الريحان؟", "بالشمس."),
    ),
    # -- what cannot be told
    ("nothing", "", "empty reply"),
    ("blank", " \n\t\n", "empty reply"),
    ("only thought", "<think>hm</think>\n", "empty reply"),
    (
        "still thinking",
        f"<think>\n### Instruction\n{ASKED}\n### Response\n{ANSWERED}",
        "thinking not finished",
    ),
    ("refusal", "I'm sorry, but I can't help with that.", "no markers"),
    ("prose", "The instruction asks about basil and the response answers it.", "no markers"),
    ("a critique", "Instruction lacks: none\nResponse lacks: light\nForm: complete", "no markers"),
    ("cut off before the response", f"### Instruction\n{ASKED}", "no response marker"),
    ("response lost its heading", f"### Instruction\n{ASKED}\n\n{ANSWERED}", "no response marker"),
    ("instruction lost its heading", f"{ASKED}\n### Response\n{ANSWERED}", "no instruction marker"),
    ("response alone, nothing earlier", f"### Response\n{ANSWERED}", "no instruction marker"),
    (
        "wrong way round",
        f"### Response\n{ANSWERED}\n### Instruction\n{ASKED}",
        "response before instruction",
    ),
    (
        "two examples",
        f"### Instruction\n{ASKED}\n### Response\nA.\n### Instruction\nB?\n### Response\nC.",
        "more than one example",
    ),
    (
        "draft and refined",
        f"Instruction: {ASKED}\nResponse: draft\n\nInstruction: {ASKED}\nResponse: better",
        "more than one example",
    ),
    (
        "response marker again",
        f"### Instruction\n{ASKED}\n### Response\nA.\n\n### Response\nA.",
        "more than one example",
    ),
    (
        "a recap in bold before plain markers",
        f"**Instruction:** clear.\n**Response:** dull.\n\nInstruction: {ASKED}\n"
        f"Response: {ANSWERED}",
        "more than one example",
    ),
    (
        "a plain pair after a lost response heading",
        f"### Instruction\n{ASKED}\n\nInstruction: x\nResponse: y",
        "more than one example",
    ),
    ("no instruction text", f"### Instruction\n\n### Response\n{ANSWERED}", "empty instruction"),
    ("no response text", f"### Instruction\n{ASKED}\n### Response\n", "empty response"),
    ("only rules as response", f"### Instruction\n{ASKED}\n### Response\n---\n", "empty response"),
    (
        "fence never closed",
        f"### Instruction\nMend:\n```\nx = 1\n### Response\n{ANSWERED}",
        "code fence not closed",
    ),
    (
        "wrapping fence ends inside",
        f"```\n### Instruction\n{ASKED}\n### Response\nRun:\n```sh\nls\n```\nThen stop.",
        "code fence not closed",
    ),
    (
        "the pack's word again in bold",
        f"### Instruction\n{ASKED}\n### Response\nThey ask: why?\n\n**Response:** say it is cold.",
        "marker in the example",
    ),
    ("foreign headings", f"### Ohje\n{ASKED}\n### Vastaus\n{ANSWERED}", "no markers"),
]

# The same with the instruction of an earlier turn at hand.
REFINED: list[tuple[str, str, tuple[str, str] | Reason]] = [
    ("response alone", f"### Response\n{ANSWERED}", (EARLIER, ANSWERED)),
    ("response alone, bold", f"**Refined Response:**\n\n{ANSWERED}", (EARLIER, ANSWERED)),
    ("after a preamble", f"Here is the refined response:\n\n### Response\n{ANSWERED}",
     (EARLIER, ANSWERED)),
    ("instruction said to stay", f"The instruction stays as it is.\n### Response\n{ANSWERED}",
     (EARLIER, ANSWERED)),
    ("both", f"### Instruction\n{ASKED}\n### Response\n{ANSWERED}", (ASKED, ANSWERED)),
    ("new instruction without heading", f"{ASKED}\n### Response\n{ANSWERED}",
     "no instruction marker"),
    ("bare text", ANSWERED, "no markers"),
    ("empty new instruction", f"### Instruction\n### Response\n{ANSWERED}", "empty instruction"),
    ("two responses", "### Response\nA.\n### Response\nB.", "more than one example"),
]  # fmt: skip


def expectation(expected: tuple[str, str] | Reason) -> Example | Unparsed:
    return Unparsed(expected) if isinstance(expected, str) else Example(*expected)


@pytest.mark.parametrize(
    ("reply", "expected"), [pytest.param(*case, id=name) for name, *case in REPLIES]
)
def test_reply_is_split_or_refused_with_the_reason(
    reply: str, expected: tuple[str, str] | Reason
) -> None:
    assert split_example(reply, "### Instruction", "### Response") == expectation(expected)


@pytest.mark.parametrize(
    ("reply", "expected"), [pytest.param(*case, id=name) for name, *case in REFINED]
)
def test_refined_reply_may_leave_the_instruction_as_it_was(
    reply: str, expected: tuple[str, str] | Reason
) -> None:
    got = split_example(reply, "### Instruction", "### Response", earlier_instruction=EARLIER)
    assert got == expectation(expected)


@pytest.mark.parametrize(
    ("instruction_marker", "response_marker"),
    [
        ("### Anweisung", "### Antwort"),
        ("指示：", "回答："),
        ("[[Q]]", "[[A]]"),
        ("@ask@", "@tell@"),
    ],
)
def test_markers_of_a_users_pack_may_be_any_words(
    instruction_marker: str, response_marker: str
) -> None:
    reply = f"{instruction_marker}\n{ASKED}\n{response_marker}\n{ANSWERED}"
    assert split_example(reply, instruction_marker, response_marker) == Example(ASKED, ANSWERED)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CORPUS])
def test_hostile_reply_is_split_exactly_or_refused_with_the_reason(case: dict[str, Any]) -> None:
    got = split_example(case["reply"], "### Instruction", "### Response", case["earlier"])
    reason = case["expect"].get("reason")
    assert got == (Unparsed(reason) if reason else Example(**case["expect"]))


def test_the_corpus_is_large_and_a_quarter_of_it_is_refused() -> None:
    replies = {(case["reply"], case["earlier"]) for case in CORPUS}
    refused = sum("reason" in case["expect"] for case in CORPUS)
    assert len(replies) == len(CORPUS) >= 200
    assert 0.2 < refused / len(CORPUS) < 0.35


def test_every_reason_has_a_hostile_reply_that_gives_it() -> None:
    assert {case["expect"].get("reason") for case in CORPUS} - {None} == set(get_args(Reason))


def test_json_that_structured_output_asks_for_is_read() -> None:
    schema = an_example()["response_format"]["json_schema"]["schema"]
    reply = json.dumps(dict(zip(schema["required"], (ASKED, ANSWERED), strict=True)))
    got = split_example(reply, "### Anweisung", "### Antwort")
    assert got == Example(ASKED, ANSWERED)


# ---- what is kept, by rules of the test's own ------------------------------------------------

_WORDS = (
    "instruction|response|query|question|answer|user|human|assistant|anweisung|antwort|frage"
    "|consigne|réponse|instrucción|respuesta|指令|回答|応答|ответ|السؤال|الجواب"
)
_MARKER = re.compile(
    rf"^[ \t]*#{{1,6}}[ \t]*[*_]*(?:{_WORDS})[*_:： \t]*$"
    rf"|^[ \t]*\*\*(?:{_WORDS})[:：]?\*\*[:：]?[ \t]*$"
    r"|^[ \t]*[*_]*(?:instruction|response)[*_]*[:：]"
    rf"|^[ \t]*(?:human|user|assistant)[:：]|^[ \t]*[<\[](?:{_WORDS})[>\]][ \t]*$"
    r"|</(?:instruction|response|query|answer)>",
    re.IGNORECASE | re.MULTILINE,
)
_DEBRIS = re.compile(
    r"<\|(?:im_start|im_end|eot_id|endoftext|channel)\|>|\[/?INST\]|</s>|<end_of_turn>"
    r"|<｜end▁of▁sentence｜>|</?think(?:ing)?>|◁/?think▷|\[/?THINK\]"
)


def left_over(part: str) -> str | None:
    """A marker or token that stayed in what is kept, outside code."""
    visible = blank_code(part)
    found = _MARKER.search(visible) or _DEBRIS.search(visible)
    return found[0] if found else None


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case["id"]) for case in CORPUS if "reason" not in case["expect"]]
)
def test_nothing_that_the_corpus_keeps_holds_a_marker(case: dict[str, Any]) -> None:
    for part in case["expect"].values():
        assert left_over(part) is None
        assert not has_heading(part, "### Instruction", "### Response")


MARKER_LINES = """### Instruction|### Response|## Response|**Response:**|**Instruction**|Response
Response: x|Instruction: x
### Query|### Answer|**Answer:** 3|### Antwort|回答：|User: x|Assistant: x|<response>
</response>|[Response]|```|~~~|````md|<think>|</think>|[THINK]|<|im_end|>|<|im_start|>user|[/INST]
</s>|{"instruction": "a", "response": "b"}|{"response": "|---|===|> ||instruction: |### Final Answer
### Revised Response|### Original Instruction|\\#\\#\\# Response|1. Response:|response: >-"""
LINES = re.split(r"(?<!<)\|(?!>)|\n", MARKER_LINES)
JUNK = (
    '\u200b \u00a0 \u200f \u202e \ufeff \0 \r \r\n \u2028 \ud83d ： ＃ ** ` ``` < > [ ] { } " \\ #'
)
CHANGES = ("drop", "double", "swap", "insert", "junk", "cut", "behead", "join", "glue", "wrap")


def mutated(reply: str, changes: list[tuple[str, int, int]]) -> str:
    """The reply after changes of (kind, place, what with)."""
    for change, here, there in changes:
        lines = reply.split("\n")
        at, other = here % len(lines), there % len(lines)
        spot = here % (len(reply) + 1)
        if change == "drop":
            lines.pop(at)
        elif change == "double":
            lines.insert(other, lines[at])
        elif change == "swap":
            lines[at], lines[other] = lines[other], lines[at]
        elif change == "insert":
            lines.insert(at, LINES[there % len(LINES)])
        elif change == "wrap":
            lines = ["```", *lines[: other + 1], "```", *lines[other + 1 :]]
        elif change == "glue":
            lines[at] += LINES[there % len(LINES)]
        reply = "\n".join(lines)
        if change == "junk":
            reply = reply[:spot] + JUNK.split(" ")[there % (JUNK.count(" ") + 1)] + reply[spot:]
        elif change in ("cut", "behead"):
            reply = reply[:spot] if change == "cut" else reply[spot:]
        elif change == "join":
            reply = reply + "\n" + CORPUS[there % len(CORPUS)]["reply"]
    return reply


mutations = st.lists(
    st.tuples(st.sampled_from(CHANGES), st.integers(0, 9999), st.integers(0, 9999)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1500)
@given(case=st.sampled_from(CORPUS), changes=mutations)
def test_mutated_replies_never_crash_and_never_keep_a_marker(
    case: dict[str, Any], changes: list[tuple[str, int, int]]
) -> None:
    """Each is an example without leftovers or an empty part, or has one of the known reasons."""
    reply = mutated(case["reply"], changes)
    got = split_example(reply, "### Instruction", "### Response", case["earlier"])
    if isinstance(got, Unparsed):
        assert got.reason in get_args(Reason)
        return
    for part in (got.instruction, got.response):
        assert part.strip(' \t\n\u200b*_#-"')
        assert left_over(part) is None
        part.encode()


PAIR = "### Instruction\nAsk?\n### Response\nAnswer.\n"
REPEATED = (
    *("a\n", "\n", "#", "### \n", "- ", "---\n", "Response\n", "Answer: x\n", PAIR, "```\nx\n"),
    *(
        "`x ",
        "<think>",
        "<think></think>",
        "</think>\n",
        "<|im_end|>x",
        "</response>",
        "<example> ",
    ),
    *("{", "[", '{"instruction": "a"}\n', "> x\n", "📝\n", "1. ", "new new new \n", "\0"),
    "\n\nNote: both skills",
)


@pytest.mark.parametrize("text", REPEATED)
def test_a_megabyte_of_anything_is_read_in_linear_time(text: str) -> None:
    megabyte = (text * (1_000_000 // len(text) + 1))[:1_000_000]
    for reply in (megabyte, PAIR + megabyte):
        started = time.process_time()
        split_example(reply, "### Instruction", "### Response", EARLIER)
        assert time.process_time() - started < 4  # quadratic takes minutes; mostly it is 0.3
