"""Shirkers: responses that do as little as they can, told by a judge's score and plain features.

The paper's strongest finding is that a fifth of poor answers ruins a model (section 3.5). What a
poor answer looks like depends on the teacher, so the gate is calibrated on the spot: for some of
the instructions the same teacher writes a brief and a careless answer (the paper's brevity and
junk), and a logistic regression learns to tell those from its real ones. The threshold is that at
which a stated share of real answers would be lost, and recall and false alarms are measured on
instructions that took no part in the fit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localism.curation.candidate import Verdict, words
from localism.skill_names import stems

Vectors = NDArray[np.float64]

FEATURES = ("judge", "words", "words_to_instruction", "different_words", "figures", "lines", "echo")
"""What a response is judged by, in the order of features()."""
REGULARISATION = 1.0
EVEN = 0.5


class Answer(NamedTuple):
    """A response with the judge's score."""

    instruction: str
    """What was asked."""
    response: str
    """What was answered."""
    judge: float
    """The judge's score of it; the higher, the better."""


class Sample(NamedTuple):
    """An answer whose kind is known."""

    group: str
    """Which instruction it answers: one side of the split or the other, never both."""
    kind: str
    """real, or what the teacher was told to write."""
    answer: Answer
    """The text."""


def features(answer: Answer) -> list[float]:
    """The numbers behind the verdict, as FEATURES names them; no unit, all of the order of one."""
    said, asked = words(answer.response), words(answer.instruction)
    content = stems(answer.instruction)
    return [
        answer.judge,
        math.log1p(len(said)),
        math.log1p(len(said)) - math.log1p(len(asked)),
        len(set(said)) / max(1, len(said)),
        sum(word[0].isdigit() for word in said) / max(1, len(said)),
        math.log1p(sum(bool(line.strip()) for line in answer.response.splitlines())),
        len(content & stems(answer.response)) / max(1, len(content)),
    ]


@dataclass(frozen=True)
class Gate:
    """A calibrated gate."""

    threshold: float
    """Probability of shirking from which on a response is rejected."""
    recall: dict[str, float]
    """Kind of poor answer -> share of the held-out ones that the gate rejects."""
    false_alarms: float
    """Share of held-out real answers that it rejects."""
    held_out: int
    """Held-out instructions behind these shares."""
    model: Any
    """Fitted scikit-learn pipeline."""

    def verdict(self, answer: Answer) -> Verdict:
        """Whether the response shirks; the value is the probability."""
        probability = float(self.model.predict_proba([features(answer)])[0, 1])
        if probability < self.threshold:
            return Verdict(True, value=probability)
        reason = f"shirks: probability {probability:.2f}, the threshold is {self.threshold:.2f}"
        return Verdict(False, reason, probability)


def calibrate(samples: Sequence[Sample], false_alarms: float) -> Gate:
    """Fit on every other instruction, measure on the others.

    `false_alarms` is the share of real answers that may be lost: the threshold is that quantile of
    the fitted ones, and never below even odds. Deterministic. Raises ValueError with fewer than two
    instructions.
    """
    order = {group: number for number, group in enumerate(sorted({s.group for s in samples}))}
    fitted = [sample for sample in samples if order[sample.group] % 2 == 0]
    held_out = [sample for sample in samples if order[sample.group] % 2 == 1]
    model = _fit(fitted)
    real = _probabilities(model, [s for s in fitted if s.kind == "real"])
    threshold = float(np.quantile(real, 1 - false_alarms, method="higher"))
    threshold = max(math.nextafter(threshold, 1.0), EVEN)
    caught = {
        kind: float(np.mean(_probabilities(model, of_kind) >= threshold))
        for kind in ("real", "brevity", "junk")
        if (of_kind := [s for s in held_out if s.kind == kind])
    }
    return Gate(threshold, caught, caught.pop("real"), len({s.group for s in held_out}), model)


def _fit(samples: Sequence[Sample]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    is_poor = [sample.kind != "real" for sample in samples]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=REGULARISATION, class_weight="balanced")
    )
    return model.fit([features(sample.answer) for sample in samples], is_poor)


def _probabilities(model: Any, samples: Sequence[Sample]) -> Vectors:
    found: Vectors = model.predict_proba([features(s.answer) for s in samples])[:, 1]
    return found


def expected_rating(logprobs: Mapping[str, float]) -> tuple[float | None, float]:
    """(mean rating, probability of all labels) from label -> natural log-probability.

    Expected value rather than the likeliest label, which throws away what the judge is unsure of
    (G-Eval, Liu et al. 2023). None when less than half of the probability is on the labels.
    """
    probabilities = {int(label): math.exp(logprob) for label, logprob in logprobs.items()}
    mass = sum(probabilities.values())
    if mass < 0.5:
        return None, mass
    return sum(rating * p for rating, p in probabilities.items()) / mass, mass
