"""Labels as teachers and files bring them: one spelling, or the reason why there is none."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localism.skill_names import MAX_LETTERS, MAX_WORDS, content_stems, mentions, normalise

DATA = Path(__file__).parents[1] / "data"


def listed(name: str) -> list[str]:
    lines = (DATA / f"skills_{name}.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Budget Management!", "budget_management"),
        ("snake__case--and CamelCase", "snake_case_and_camelcase"),
        ("  3D printing ", "3d_printing"),
        ("k8s", "k8s"),
        ("Ａｃｃｏｕｎｔｉｎｇ ﬂow", "accounting_flow"),
        ("bud\u200bget plan\u00adning", "budget_planning"),
        ("🎨 Painting ❤️", "painting"),
        ("1️⃣ Planning", "1_planning"),
        ("数据分析", "数据分析"),
        ("हिन्दी लेखन", "हिन्दी_लेखन"),
        ("Straße bauen", "strasse_bauen"),
        ("children's and children’s books", "childrens_and_childrens_books"),
        ("'); DROP TABLE skill; --", "drop_table_skill"),
        ("null\x00byte", "null_byte"),
        ("know your customer", "know_your_customer"),
        ("thank you notes", "thank_you_notes"),
        ("U.S. history", "u_s_history"),
    ],
)
def test_a_label_has_one_spelling(raw: str, name: str) -> None:
    assert normalise(raw) == (name, None)


def test_c_and_its_relatives_stay_apart() -> None:
    raws = ["C coding", "C++ coding", "C# coding", "F# coding", "c#_coding", ".NET coding"]
    names = [normalise(raw).text for raw in raws]
    assert names == [
        "c_coding",
        "cpp_coding",
        "csharp_coding",
        "fsharp_coding",
        "csharp_coding",
        "dotnet_coding",
    ]
    assert mentions("cpp_coding", "She was coding in C++.")
    assert not mentions("cpp_coding", "She was coding in C.")


@pytest.mark.parametrize("raw", ["", "   ", "_ _", "!!!", "💥🎨", "2024", "\u200b", "\x00"])
def test_without_a_letter_there_is_no_name(raw: str) -> None:
    assert normalise(raw) == (None, "no word in it")


@pytest.mark.parametrize(
    "raw",
    [
        "I can write good code",
        "Here are ten skills",
        "This skill is about planning",
        "Ability to set goals and plan well.",
        "word " * (MAX_WORDS + 1),
        "You plan ahead",
    ],
)
def test_a_sentence_is_no_name(raw: str) -> None:
    name, problem = normalise(raw)
    assert name is None and problem and problem.startswith("a sentence")


def test_a_word_of_ten_thousand_letters_is_no_name() -> None:
    assert normalise("a" * 10_000) == (None, f"a word of more than {MAX_LETTERS} letters")
    assert normalise("plan " + "é" * (MAX_LETTERS + 1)).text is None
    assert normalise("é" * MAX_LETTERS).text == "é" * MAX_LETTERS
    assert normalise("ab " * 5_000).text is None


@given(st.text(max_size=60))
def test_a_name_is_its_own_spelling(raw: str) -> None:
    name, problem = normalise(raw)
    assert (name is None) != (problem is None)
    if name is not None:
        assert normalise(name) == (name, None)
        assert content_stems(name)


def test_the_papers_lists_keep_every_name_and_lose_only_exact_doubles() -> None:
    distinct = {
        "sda": (1142, 1131),
        "sdd_alpaca": (337, 336),
        "sdd_ultrachat": (127, 127),
        "sdd_safety": (35, 35),
    }
    for name, (rows, skills) in distinct.items():
        found = [normalise(raw) for raw in listed(name)]
        assert [problem for _, problem in found if problem] == []
        assert (len(found), len(set(found))) == (rows, skills)
    doubles = Counter(normalise(raw).text for raw in listed("sda"))
    assert sum(count - 1 for count in doubles.values()) == 11  # as published: 11 of 1,143
    every = [f for name in distinct if name != "sda" for f in map(normalise, listed(name))]
    assert len(set(every)) == 482
