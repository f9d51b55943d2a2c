"""Replies as real teachers write them -> instruction and response, or the reason why not."""

import random
from typing import get_args

import pytest

from localism.parse_example import Example, Reason, Unparsed, split_example

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
        "bold response in a response",
        f"### Instruction\n{ASKED}\n### Response\nThey ask: why?\n\n**Response:** say it is cold.",
        (ASKED, "They ask: why?\n\n**Response:** say it is cold."),
    ),
    (
        "plain pair in a response",
        f"### Instruction\n{ASKED}\n### Response\nQuestion: light?\nAnswer: six hours.",
        (ASKED, "Question: light?\nAnswer: six hours."),
    ),
    (
        "plain response in an instruction",
        f"### Instruction\nMend my mail. Response: hi\nResponse: bye\n### Response\n{ANSWERED}",
        ("Mend my mail. Response: hi\nResponse: bye", ANSWERED),
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
        "a tag in the response stays",
        f"### Instruction\n{ASKED}\n### Response\nUse <think> and </think>.",
        (ASKED, "Use <think> and </think>."),
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
    ("foreign headings", f"### Anweisung\n{ASKED}\n### Antwort\n{ANSWERED}", "no markers"),
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


def outside_fences(text: str) -> list[str]:
    outside, fence = [], ""
    for line in text.split("\n"):
        mark = line[:3]
        if fence and mark == fence and not line.strip("`~ "):
            fence = ""
        elif not fence and mark in ("```", "~~~"):
            fence = mark
        elif not fence:
            outside.append(line)
    return outside


def test_every_reason_has_a_reply_that_gives_it() -> None:
    given = {expected for _, _, expected in REPLIES if isinstance(expected, str)}
    assert given == set(get_args(Reason))


def test_mutated_replies_never_crash_and_never_keep_a_marker() -> None:
    """Lines dropped, doubled, swapped and cut: a parse, or a reason; the markers never stay."""
    rng = random.Random(0)
    replies = [reply for _, reply, _ in REPLIES]
    for _ in range(3000):
        lines = (rng.choice(replies) + "\n" + rng.choice(replies)).split("\n")
        for _ in range(rng.randint(1, 4)):
            here, there = rng.randrange(len(lines)), rng.randrange(len(lines))
            change = rng.choice(["drop", "double", "swap", "cut", "fence"])
            if change == "drop" and len(lines) > 1:
                lines.pop(here)
            elif change == "double":
                lines.insert(there, lines[here])
            elif change == "swap":
                lines[here], lines[there] = lines[there], lines[here]
            elif change == "cut":
                lines[here] = lines[here][: rng.randint(0, len(lines[here]))]
            else:
                lines.insert(here, "```")
        got = split_example("\n".join(lines), "### Instruction", "### Response")
        if isinstance(got, Example):
            assert got.instruction.strip() and got.response.strip()
            for part in (got.instruction, got.response):
                assert not {"### Instruction", "### Response"} & set(outside_fences(part))
        else:
            assert got.reason in get_args(Reason)
