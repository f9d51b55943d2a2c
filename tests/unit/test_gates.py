"""Each gate on hand-made texts: what it rejects, and the good examples that it must let pass."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from localism.benchmark_files import BenchmarkPrompt, read_prompts
from localism.config import Curate, Language
from localism.curation import gates
from localism.curation.candidate import Candidate, Verdict
from localism.curation.duplicates import Texts
from localism.curation.gates import Bounds, Markers
from localism.curation.language import LANGUAGES, language, language_of
from localism.curation.overlap import Prompts
from localism.curation.personal import found_kinds, personal_data
from localism.curation.repetition import loop_length, repeated_lines, repeated_words, repetition
from localism.curation.talk import refusal, self_talk
from localism.curation.unfinished import breaks_off
from localism.errors import ConfigError
from localism.models_toml import validate
from localism.paths import embedded
from localism.stages.curate import token_counter

DATA = Path(__file__).parents[1] / "data"
INSTRUCTION = "My basil droops each noon on a window sill of 31 degrees. What do I do?"
RESPONSE = "Move the herbs back from the glass at noon. Water them in the morning until it drains."
DEFAULTS = Curate()


def candidate(instruction: str = INSTRUCTION, response: str = RESPONSE) -> Candidate:
    return Candidate("a", "train", 0, ("x",), instruction, response, None, "stop")


def gates_by_name() -> dict[str, Callable[[Candidate], Verdict]]:
    """With the default thresholds."""
    bounds = Bounds(
        (DEFAULTS.min_instruction_tokens, DEFAULTS.max_instruction_tokens),
        (DEFAULTS.min_response_tokens, DEFAULTS.max_response_tokens),
    )
    count = token_counter(embedded("embedded:student"))
    markers = Markers("### Instruction", "### Response")
    return {
        "parsed": gates.parsed,
        "complete": gates.complete,
        "length": lambda one: gates.length(one, bounds, count),
        "markers": lambda one: gates.no_markers(one, markers),
        "repetition": lambda one: repetition(one, DEFAULTS.max_repeated, DEFAULTS.min_compression),
        "refusal": lambda one: refusal(one, DEFAULTS.max_refusal_words),
        "self_talk": self_talk,
        "language": lambda one: language(one, DEFAULTS.languages),
        "personal_data": lambda one: personal_data(one, DEFAULTS.max_personal_data),
    }


GATES = gates_by_name()


def examples(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


GOOD, BAD = examples("good_examples.jsonl"), examples("bad_examples.jsonl")
TRICKY_GOOD, TRICKY_BAD = examples("tricky_good.jsonl"), examples("tricky_bad.jsonl")
# What the gates still miss among TRICKY_BAD; docs/curation.md says why.
MISSED = {
    ("complete", "abbreviation"),
    ("self_talk", "this example shows"),
    ("self_talk", "word count"),
    ("personal_data", "address"),
    ("personal_data", "password in clear"),
}


@pytest.mark.parametrize("name", GATES)
def test_no_gate_rejects_a_good_example(name: str) -> None:
    assert len(GOOD) >= 60 and len({row["domain"] for row in GOOD}) >= 30
    verdicts = {
        row["response"]: GATES[name](candidate(row["instruction"], row["response"])) for row in GOOD
    }
    assert {text: v.reason for text, v in verdicts.items() if not v.passed} == {}


@pytest.mark.parametrize("row", BAD, ids=lambda row: row["gate"])
def test_each_bad_example_is_rejected_by_its_gate_with_a_reason(row: dict[str, str]) -> None:
    verdict = GATES[row["gate"]](candidate(row["instruction"], row["response"]))
    assert not verdict.passed and verdict.reason


def test_no_gate_rejects_a_good_example_that_was_written_to_tempt_it() -> None:
    assert len(TRICKY_GOOD) >= 100
    wrong = {
        (name, row["kind"]): verdict.reason
        for row in TRICKY_GOOD
        for name, gate in GATES.items()
        if not (verdict := gate(candidate(row["instruction"], row["response"]))).passed
    }
    assert wrong == {}


def test_of_the_bad_examples_that_were_written_to_slip_through_five_do() -> None:
    assert len(TRICKY_BAD) >= 100
    missed = {
        (row["gate"], row["kind"])
        for row in TRICKY_BAD
        if GATES[row["gate"]](candidate(row["instruction"], row["response"])).passed
    }
    assert missed == MISSED


def test_numbers_that_gates_compare_are_kept_and_stand_behind_the_reason() -> None:
    """Whatever is rejected for a number has it as its value; grouping is by what stands before."""
    numeric = {"length", "repetition", "refusal", "personal_data"}
    for row in [*BAD, *TRICKY_BAD]:
        verdict = GATES[row["gate"]](candidate(row["instruction"], row["response"]))
        if row["gate"] in numeric and not verdict.passed:
            group, _, particulars = (verdict.reason or "").partition(": ")
            assert verdict.value is not None and any(map(str.isdigit, particulars))
            assert not any(map(str.isdigit, group)) or row["gate"] == "length"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two.\n\n1. First do this.\n2.", "empty list item"),
        ("The result is\n\n12.", None),
        ("A list:\n- tea\n- milk", None),
        ("Dear Ann,\n\nThanks for all.\n\nBest regards,", None),
        ("See [the page](http://a.example/x_(y)) for more", None),
        ("It fits.\nUse `f(x` as typed", None),
        ("Pick one. Then go. I like it :(", None),
        ("The board is 12\" wide and 5' long", None),
        ("Name:\nDate:\nName of the person to call:", None),
        ("Very nice.\nSee (the notes", "bracket not closed"),
        ("$$a$$ and $$b", "formula not closed"),
        ("\\begin{align} a &= b", "environment not closed"),
        ("| a | b |\n|---|---|\n| 1 | 2", "table row not closed"),
        ("```\nx = (1,\n```", None),
        ("Two options. Both take\n**options: what the call is given.", None),
        ("It is a sum. And so\n(x + 2)**n", None),
        ("Do this. **Never", "bold not closed"),
        ("It is long. For more, read on at https://docs.example.org/guide", None),
        ("## One\nText.\n\n## Two", "nothing below the last heading"),
        ("## One\n## Two", None),
        ("", None),
    ],
)
def test_only_the_end_of_a_text_tells_that_it_breaks_off(text: str, found: str | None) -> None:
    assert breaks_off(text) == found


def test_length_counts_tokens_and_says_which_part_is_out_of_bounds() -> None:
    bounds = Bounds((3, 5), (2, 4))

    def verdict(instruction: str, response: str) -> Verdict:
        one = candidate(instruction, response)
        return gates.length(one, bounds, lambda text: len(text.split()))

    assert verdict("a b c", "a b") == Verdict(True, None, 2.0)
    assert verdict("a b", "a b") == Verdict(False, "instruction shorter than 3 tokens: 2", 2.0)
    assert verdict("a b c d e f", "a b") == Verdict(
        False, "instruction longer than 5 tokens: 6", 6.0
    )
    assert verdict("a b c", "a") == Verdict(False, "response shorter than 2 tokens: 1", 1.0)
    assert verdict("a b c", "a b c d e") == Verdict(False, "response longer than 4 tokens: 5", 5.0)


def test_tokens_are_those_of_the_students_tokenizer_without_control_tokens() -> None:
    from transformers import AutoTokenizer

    folder = embedded("embedded:student")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    count = token_counter(folder)
    for text in (INSTRUCTION, RESPONSE, "室内のバジル", ""):
        assert count(text) == len(tokenizer(text, add_special_tokens=False).input_ids)


def test_a_loop_counts_its_words_whatever_its_period() -> None:
    start = "first of all a few words that do not repeat".split()
    for period in (1, 2, 7, 13):
        unit = [f"w{i}" for i in range(period)]
        times = 30 // period + 4
        assert loop_length(start + unit * times) == period * times
    assert loop_length(start + ["la"] * 10) == 0
    assert loop_length(["1", "0"] * 40) == 0  # rows of digits are data


def test_repeated_shares() -> None:
    eight = "a b c d e f g h".split()
    assert repeated_words(eight) == 0
    assert repeated_words(eight + ["x"] + eight) == pytest.approx(8 / 17)
    line = "keep the soil moist"
    assert repeated_lines([line] * 3) == 0  # fewer than four say nothing
    assert repeated_lines([line, line, line, "and then let it rest"]) == 0.5


@pytest.mark.parametrize(
    ("response", "passed"),
    [
        ("I'm sorry, but I can't help with that.", False),
        ("I can't tell from here what it is. " + RESPONSE, True),
        ("\"I'm sorry, but I can't help with that\" is what it says. " + RESPONSE, True),
        ("I cannot give a diagnosis, but this helps. " + RESPONSE * 6, True),
        ("Sorry to hear about your basil. " + RESPONSE, True),
        ("Leider hat die Pflanze zu wenig Wasser bekommen. Gieße sie jetzt.", True),
    ],
)
def test_a_refusal_is_a_whole_response_that_declines(response: str, passed: bool) -> None:
    assert refusal(candidate(response=response), 80).passed is passed


def test_what_is_quoted_or_asked_for_is_no_self_talk() -> None:
    talk = "As an AI language model, I have no garden. " + RESPONSE
    assert not self_talk(candidate(response=talk)).passed
    assert self_talk(candidate("What does an AI say about gardens?", talk)).passed
    assert self_talk(candidate(response=f'It said: "{talk}"')).passed
    revised = "Here is the revised version: the herbs droop."
    assert not self_talk(candidate(response=revised)).passed
    assert self_talk(candidate("Rewrite this: the herbs are drooping.", revised)).passed


def test_the_language_of_each_good_example_is_found_or_left_open() -> None:
    tongues = {"deutsch": "de", "français": "fr", "español": "es", "italiano": "it", "polski": "pl",
               "português": "pt", "nederlands": "nl", "русский": "ru", "中文": "zh", "日本語": "ja",
               "한국어": "ko", "العربية": "ar"}  # fmt: skip
    for row in GOOD:
        if row["domain"] in tongues:
            assert language_of(row["response"]) == tongues[row["domain"]], row["response"]
        elif row["domain"] not in ("translation", "language learning"):
            assert language_of(row["response"]) in ("en", None), row["response"]


def test_wanted_languages_hold_for_both_parts() -> None:
    german = next(row for row in GOOD if row["domain"] == "deutsch")
    one = candidate(german["instruction"], german["response"])
    assert language(one, ()).passed and language(one, ("en", "de")).passed
    assert language(one, ("en",)).reason == "instruction in another language: de"


def test_the_languages_of_models_toml_are_those_that_are_known() -> None:
    assert sorted(get_args(Language)) == sorted(LANGUAGES)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("mail jo.miller82@gmail.com", ["e-mail address"]),
        ("mail jo@example.com or info@northfield.co.uk", []),
        ("card 4539 5787 6362 1486", ["payment card"]),
        ("card 4539 5787 6362 1487", []),
        ("IBAN DE44 5001 0517 5407 3249 31", ["bank account"]),
        ("IBAN DE45 5001 0517 5407 3249 31", []),
        ("call (212) 555-0142 or 555-867-5309", []),
        ("+44 7700 900123 is for drama", []),
        ("my cell is 617-482-9921", ["phone number"]),
        ("SSN 078-05-1120, 666-22-8143", []),
        ("hosts 192.168.1.7, 10.1.2.3, 203.0.113.7, 127.0.0.1", []),
        ("section 3.2.1.4 of version 84.17.52.203", []),
        ("host 84.17.52.203", ["internet address"]),
        ("sk-your-key-goes-here-xxxxxxxx and AKIAIOSFODNN7EXAMPLE", []),
        ("2024-10-03, 1,234,567.89 and 3.14159265358979", []),
        ("ISBN 978-3-16-148410-0 costs 12.99", []),
    ],
)
def test_personal_data_is_told_from_what_was_made_for_examples(text: str, kinds: list[str]) -> None:
    assert list(found_kinds(text)) == kinds


def test_personal_data_is_counted_and_never_repeated_in_the_reason() -> None:
    one = candidate(response=f"{RESPONSE} jo.miller82@gmail.com, 617-482-9921")
    reason = "personal data: e-mail address (1), phone number (1)"
    assert personal_data(one, 0) == Verdict(False, reason, 2.0)
    assert personal_data(one, 2).passed


# ---- overlap -------------------------------------------------------------------------------

PROMPT = (
    "Which of the three mugs on my desk keeps tea warm longest when the door stays open all day,"
    " and how could I measure it without a thermometer?"
)
FIRST_12 = " ".join(PROMPT.split()[:12])
OTHER = "tea and of coffee, for I have no idea at all about either of them, nor of cups or cans"
PROMPTS = Prompts([BenchmarkPrompt("b line 1", PROMPT), BenchmarkPrompt("b line 2", "Why is it?")])


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (PROMPT.upper(), "a benchmark's prompt: b line 1"),
        ("why is it", "a benchmark's prompt: b line 2"),
        ("Why is it that basil droops at noon on a hot sill, every single day?", None),
        ("Please: " + PROMPT, "mostly a benchmark's prompt: b line 1, 1.00 of it"),
        (f"{FIRST_12} what about it, my friend of {OTHER}", None),
        (f"{FIRST_12} when {OTHER} {OTHER}", "13 words of a benchmark's prompt: b line 1"),
        (INSTRUCTION, None),
        ("", None),
    ],
)
def test_overlap_with_benchmark_prompts(instruction: str, reason: str | None) -> None:
    verdict = PROMPTS.overlap(candidate(instruction), run=13, most=0.5)
    assert (verdict.passed, verdict.reason) == (reason is None, reason)


def test_without_benchmarks_nothing_overlaps() -> None:
    assert Prompts([]).overlap(candidate(PROMPT), 13, 0.5) == Verdict(True, None, 0.0)


def test_prompts_are_read_from_text_and_from_jsonl_of_many_shapes(tmp_path: Path) -> None:
    text, rows = tmp_path / "a.txt", tmp_path / "b.jsonl"
    text.write_text("one\n\n  two \n")
    rows.write_text('{"prompt": "a"}\n"b"\n\n{"question_id": 1, "turns": ["c", "d"]}\n')
    assert [prompt.text for prompt in read_prompts(text)] == ["one", "two"]
    assert [tuple(prompt) for prompt in read_prompts(rows)] == [
        ("b.jsonl line 1", "a"), ("b.jsonl line 2", "b"), ("b.jsonl line 4", "c\nd"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["b.json", "b.csv", "b.yaml", "b.parquet"])
def test_a_format_that_is_not_read_is_not_taken_for_prompts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[{"prompt": "What is tea?"}]')
    with pytest.raises(ConfigError, match="not read from") as refused:
        read_prompts(tmp_path / name)
    assert name in refused.value.where and "JSONL" in refused.value.fix


@pytest.mark.parametrize(
    "content",
    ["", '{"id": 1}', "{", '{"prompt": 3}', b"\xff\xfe\x00", "[" * 100_000, '"\\ud800"'],
)
def test_a_benchmark_file_without_prompts_is_a_configuration_error(
    tmp_path: Path, content: str | bytes
) -> None:
    path = tmp_path / "b.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match="prompt"):
        read_prompts(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompts(tmp_path / "none.jsonl")


# ---- models.toml ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("curate", "problem"),
    [
        ({"gates": ["complete", "parsed"]}, "parsed must come first"),
        ({"gates": []}, "parsed must come first"),
        ({"gates": ["parsed", "length", "length"]}, "named twice: length"),
        ({"gates": ["parsed", "lenght"]}, 'cannot be "lenght"'),
        ({"skills": "off"}, 'skills cannot be "off"'),
        ({"min_response_tokens": 50, "max_response_tokens": 40}, "no response has at least 50"),
        ({"languages": ["klingon"]}, 'cannot be "klingon"'),
        ({"duplicates_by": "minhash"}, 'duplicates_by cannot be "minhash"'),
    ],
)
def test_a_wrong_list_of_gates_or_threshold_is_refused(curate: dict, problem: str) -> None:
    table = {
        "teacher": {"path": "embedded:teacher"},
        "judge": {"same_as": "teacher"},
        "student": {"path": "embedded:student"},
        "curate": curate,
    }
    with pytest.raises(ConfigError) as refused:
        validate(table, "models.toml")
    assert problem in refused.value.problem and "curate" in (refused.value.where or "")


# ---- duplicates ----------------------------------------------------------------------------


def test_the_default_threshold_takes_one_of_104_other_tasks_for_a_duplicate() -> None:
    with (DATA / "instruction_pairs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) >= 120
    caught = []
    for row in rows:
        texts = Texts([row["first"], row["second"]], DEFAULTS.near_duplicate)
        texts.keep(0)
        if texts.find(1):
            caught.append(row["kind"])
    # 15 of 32 small edits, recall 15 of 64, and one false; docs/curation.md.
    assert sorted(caught) == ["detail"] + ["edited"] * 15
