"""How many sentences a text has: what ends one, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localism.suites.sentences import count


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        (" ... ", 0),
        ("One bee hums", 1),
        ("Bees hum. The hive glows.", 2),
        ("bees hum. the hive glows.", 2),
        ("It ended.Then it rained.", 2),
        ("Isn't it time? Isn't it late? It is!", 3),
        ("Really?! You sewed it yourself?", 2),
        ("A knot; a rope: a sail - done.", 1),
        ("He won in 1999. The rest is rope.", 2),
        ("Great! 🎉 Now sew.", 2),
        ("*Bees hum.* The hive glows.", 2),
        ("針に糸を通す。布が縫える。", 2),
    ],
)
def test_a_mark_between_two_sentences_ends_one(text, sentences):
    assert count(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Reyes kept bees. Mrs. Lind kept ducks.", 2),
        ("Tools, e.g. a hoe, i.e. a blade on a stick, help.", 1),
        ("Ropes, nets, etc. lay about.", 1),
        ("Ropes, nets, etc. The crew slept.", 2),
        ("It opens at 9 a.m. on Mondays.", 1),
        ("It opens at 9 a.m. The queue is long.", 2),
        ("She moved to the U.S. Army base.", 1),
        ("She moved to the U.S. It was cold.", 2),
        ("J. R. R. Tolkien wrote it.", 1),
        ("We chose plan B. It failed.", 2),
        ("See Fig. 2 for the knot.", 1),
        ("He ate a ripe fig. Then he slept.", 2),
        ("Gen. Marlow and Rep. Ito met.", 1),
        ("One more rep. Then rest.", 2),
        ("It was room no. 5 again.", 1),
        ("I said no. He left.", 2),
        ("St. Anne's garden grew.", 1),
    ],
)
def test_the_full_stop_of_an_abbreviation_ends_none_unless_a_sentence_ends_there(text, sentences):
    assert count(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('"Why?" he asked.', 1),
        ('"Is it ripe?" Mara asked.', 1),
        ('He cried "Fire!" and ran.', 1),
        ('"Stop." She left.', 2),
        ("“Wait!” said the guard. “Not here.”", 2),
        ("Sewing (see below.) is calm.", 1),
        ("(He knew. Or did he?) She knew.", 3),
        ("Oh! what a knot.", 1),
    ],
)
def test_speech_and_parentheses_may_go_on(text, sentences):
    assert count(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He paid $3.50 for 2.5 kg of wax.", 1),
        ("Use node.js or v1.2.3 here.", 1),
        ("Visit www.example.org today.", 1),
        ("Wait... what happened?", 1),
        ("And then… I knew.", 1),
        ("He waited... Nobody came.", 2),
    ],
)
def test_decimals_names_and_pauses_end_none(text, sentences):
    assert count(text) == sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("1. Tie it.\n2. Pull it.", 2),
        ("- tie it\n- pull it", 2),
        ("First line\n\nSecond line", 2),
        ("One long line that\nwraps here.", 1),
    ],
)
def test_paragraphs_and_items_are_sentences_of_their_own(text, sentences):
    assert count(text) == sentences


@given(st.text(alphabet="aB1 .!?…。\"'”)(*_-\n", max_size=60))
def test_any_text_is_counted_and_space_around_it_does_not_matter(text):
    assert count(f"  {text}  ") == count(text)
    assert (count(text) == 0) == (not any(character.isalnum() for character in text))


@given(st.integers(1, 9))
def test_a_sentence_repeated_is_counted_as_often(times):
    assert count("The hive glows. " * times) == times
