"""Stage curate with the real embedder: duplicates and benchmark prompts in other words."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from engines import NewContext, embedded_config

from localism.clustering.embed import encode, reads_whole
from localism.config import Curate, Embedder
from localism.curation.candidate import Candidate, Verdict
from localism.errors import ConfigError
from localism.paths import embedded
from localism.stages.curate_alike import duplicate_verdicts, overlap_verdicts

ROOT = Path(__file__).parents[2]
DEFAULTS = Curate()
STAIN = "How do I remove a red wine stain from a white cotton tablecloth?"
EDITED = "How can I remove a red wine stain from a white cotton table cloth?"
OTHER = "Which glasses and which tablecloth suit a dinner with red wine for eight guests?"


def numbered(instructions: list[str]) -> list[Candidate]:
    return [
        Candidate(str(i), "train", i, ("x",), text, "It is so.", None, "stop")
        for i, text in enumerate(instructions)
    ]


@pytest.mark.parametrize(
    ("way", "found"), [("words", None), ("meaning", "the same meaning: 0"), ("both", None)]
)
def test_what_is_a_duplicate_depends_on_the_way_of_looking(
    new_context: NewContext, way: str, found: str | None
) -> None:
    cosine = float(encode([STAIN, EDITED], Embedder())[0] @ encode([STAIN, EDITED], Embedder())[1])
    assert cosine > 0.95
    # "both" is here so strict that only the words could find it, which they do not.
    least = 0.95 if way == "meaning" else 1.0
    curate = {"duplicates_by": way, "near_cosine": least}
    context = new_context(embedded_config(curate=curate))
    verdicts = duplicate_verdicts(context, numbered([STAIN, EDITED, OTHER, STAIN.upper()]))
    reason = verdicts["1"].reason
    assert (reason.split(",")[0] if reason else None) == found
    assert verdicts["0"].passed and verdicts["2"].passed
    assert verdicts["3"] == Verdict(False, "same instruction: 0", 1.0)
    stored = context.store.value("SELECT count(*) FROM embedding")
    assert stored == (0 if way == "words" else 4)


def test_of_texts_longer_than_the_embedder_reads_only_the_words_count(
    new_context: NewContext,
) -> None:
    start = " ".join(f"Rule {i}: keep lane {i % 7} free of carts." for i in range(60))
    long = [f"{start} Now tell me {question}" for question in (
        "which carts may stop in the first lane, and how long each of them may stay there",
        "how the lanes were counted before, who wrote the rules down, and in which year it was",
    )]  # fmt: skip
    assert reads_whole([*long, STAIN], Embedder()) == [False, False, True]
    one, other = encode(long, Embedder())
    assert one @ other > 0.999  # what the embedder does not read would be lost
    curate = {"near_duplicate": 0.97}
    context = new_context(embedded_config(curate=curate))
    verdicts = duplicate_verdicts(context, numbered([*long, long[0]]))
    assert [verdicts[str(i)].passed for i in range(3)] == [True, True, False]
    assert verdicts["1"] == Verdict(True)


@pytest.mark.parametrize(
    ("missing", "problem"),
    [("tokenizer.json", "no tokenizer.json"), ("sentence_bert_config.json", "how much text")],
)
def test_an_embedder_that_does_not_say_what_it_reads_is_refused(
    tmp_path: Path, missing: str, problem: str
) -> None:
    for file in embedded("embedded:minilm").glob("*.json"):
        if file.name not in (missing, "config.json"):
            shutil.copy(file, tmp_path)
    with pytest.raises(ConfigError, match=problem):
        reads_whole([STAIN], Embedder(path=str(tmp_path)))


def test_the_default_cosine_finds_25_of_32_small_edits_and_takes_one_other_task_for_one() -> None:
    with (ROOT / "tests" / "data" / "instruction_pairs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = encode([row["first"] for row in rows], Embedder())
    second = encode([row["second"] for row in rows], Embedder())
    cosines = (first * second).sum(axis=1)
    taken = [r for r, c in zip(rows, cosines, strict=True) if c >= DEFAULTS.near_cosine]
    assert sorted(row["kind"] for row in taken) == ["detail"] + ["edited"] * 25


def test_a_paraphrase_of_a_benchmarks_prompt_is_rejected_and_another_task_is_not(
    new_context: NewContext, tmp_path: Path
) -> None:
    path = tmp_path / "bench.txt"
    path.write_text(f"{STAIN}\nWrite a limerick about a forgetful baker.\n")
    instructions = [
        "Make up a limerick on a baker who forgets everything.",
        OTHER,
        STAIN,
        "Write a limerick about a nervous dentist.",
        "Rule one. " * 300,
    ]
    context = new_context(embedded_config(curate={"benchmarks": [str(path)]}))
    verdicts = overlap_verdicts(context, numbered(instructions))
    assert [verdicts[str(i)].passed for i in range(5)] == [False, True, False, True, True]
    value = verdicts["0"].value
    assert value is not None and value > DEFAULTS.overlap_cosine
    meaning = "means what a benchmark's prompt means: bench.txt line 2, cosine"
    assert verdicts["0"].reason == f"{meaning} {value:.2f}"
    assert verdicts["2"].reason == "a benchmark's prompt: bench.txt line 1"
    assert verdicts["4"] == Verdict(True, None, 0.0)  # too long for a vector
    words = new_context(
        embedded_config(curate={"benchmarks": [str(path)], "overlap_cosine": 1}), "w"
    )
    assert overlap_verdicts(words, numbered(instructions))["0"] == Verdict(True, None, 0.0)


def test_the_default_cosine_finds_over_half_of_the_paraphrases_and_no_other_task() -> None:
    lines = (ROOT / "benchmarks" / "overlap_pairs.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert sum(row["is_overlap"] for row in rows) >= 60
    assert sum(not row["is_overlap"] for row in rows) >= 100
    prompts = encode([row["prompt"] for row in rows], Embedder())
    told = encode([row["instruction"] for row in rows], Embedder())
    cosines = (prompts * told).sum(axis=1)
    taken = [r for r, c in zip(rows, cosines, strict=True) if c >= DEFAULTS.overlap_cosine]
    kinds = [row["kind"] for row in taken]
    assert (kinds.count("light"), kinds.count("reworded"), len(kinds)) == (30, 6, 36)
