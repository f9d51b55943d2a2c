"""Written verdicts of FLASK and SKILL-MIX from a real engine under structured outputs."""

import pytest
from scripted import judging

from localism.suites import flask, skillmix
from localism.suites.records import Answer
from localism.suites.staging import SAMPLES


@pytest.mark.parametrize("suite", [flask, skillmix])
def test_a_real_engine_keeps_to_the_form_of_a_verdict(teacher, suite):
    item = suite.read(SAMPLES / suite.NAME)[0]
    text = "Answer: The tray waits for nobody, so be there by noon."
    given = [Answer("base", item.item_id, suite.turns(item), 0, text, "stop")]
    question = next(iter(suite.questions(item, given, judging(max_tokens=160))))
    verdicts = teacher.run(question.ask(teacher.client))
    labels = {verdict.label for verdict in verdicts}
    allowed = {"1", "2", "3", "4", "5", "N/A"} if suite is flask else {"0", "1", "1 of at most 1"}
    assert len(verdicts) == len(question.aspects) and labels <= allowed
