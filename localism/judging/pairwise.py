"""One answer against the reference: the judge's letter, read as a probability, in both orders.

The judge sees an instruction and two responses, called by two one-token labels, and is asked for
the label of the better one. It writes nothing: the exact probabilities that it gives to the two
labels (with and without a space before them) are read from the full vocabulary, and

    preference = P(label of the answer) / (P(first label) + P(second label))

is the probability that the answer beats the reference. Judges like one position better than the
other, so each pair is shown in both orders and the two preferences are averaged (AlpacaEval shows a
pair once, its side drawn by the instruction; `pick.both_orders = false` does so, draw for draw).
An empty answer is judged like any other: to call it lost without asking would be our verdict.

A judge of kind "likelihood" is not asked which is better. Both answers are scored as replies to the
instruction, and with L the mean log-probability of a reply's tokens

    preference = exp(L_answer) / (exp(L_answer) + exp(L_reference))

It prefers what it would say itself, its own references above all: the report says so.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from localism.judging.heldout import HeldOutItem
from localism.judging.winrate import Battles
from localism.prompting.packs import Pack, marker
from localism.records import Split, stable_id
from localism.serving.client import Client, RequestFailed
from localism.store import Store

# Below this the judge means to write something else, and the ratio of the two labels says little.
MIN_MASS = 1e-3


@dataclass(frozen=True)
class Pairing:
    """One question to the judge: this answer and its reference, in this order."""

    answer_id: str
    """The answer that is judged."""
    model_id: str
    """Who gave it."""
    mix_id: str
    """The item that it answers."""
    instruction: str
    """What was asked."""
    answer: str
    """The model's answer."""
    reference: str
    """The teacher's response."""
    answer_first: bool
    """Whether the answer is shown before the reference."""

    def prompt(self, pack: Pack) -> str:
        """The judge's prompt."""
        shown = (self.answer, self.reference)
        first, second = shown if self.answer_first else shown[::-1]
        values = {"instruction": self.instruction, "first": first, "second": second}
        if pack.uses("judge", "marker"):
            # The same for every answer to this item: what is alike in their prompts comes from the
            # engine's prefix cache.
            texts = self.instruction, self.reference
            values["marker"] = marker(*texts, absent_from=self.answer)
        return pack.render("judge", **values)


class Verdict(NamedTuple):
    """What the judge's probabilities say about one pairing."""

    preference: float | None
    """P(the answer is better); None is unscored."""
    mass: float | None
    """Probability of the two labels together; None when the call failed."""
    reason: str | None
    """Why it is unscored."""


def read_verdict(logprobs: tuple[float, ...], *, answer_first: bool) -> Verdict:
    """Log-probabilities of the first and the second label -> a verdict on the answer."""
    probabilities = [math.exp(logprob) for logprob in logprobs]
    mass = sum(probabilities)
    if not mass >= MIN_MASS:  # so that NaN is unscored too
        reason = f"the judge follows neither label: their probability together is {mass:.1e}"
        return Verdict(None, mass, reason)
    return Verdict(probabilities[0 if answer_first else 1] / mass, mass, None)


def orders(instruction: str, *, both: bool) -> tuple[bool, ...]:
    """Values of answer_first that an instruction is judged with.

    A single order is a function of the instruction, the same for every model, so that models stay
    comparable; the seed and the draw are those of AlpacaEval 2 and reproduce its published sides.
    """
    if both:
        return (True, False)
    draw = random.Random(f"is_switched_outputs{instruction}0")
    return (draw.choices([False, True])[0],)


def unjudged(store: Store, split: Split, *, both: bool) -> list[Pairing]:
    """The pairings of all answers of a split that have no judgment row yet.

    They come item by item and order by order, models last: prompts of neighbours begin alike, which
    the engine's prefix cache rewards.
    """
    rows = store.query(
        """
        SELECT a.answer_id, a.model_id, a.mix_id, c.instruction, a.text AS answer,
               c.response AS reference, list(j.answer_first) AS judged
        FROM answer a JOIN candidate c USING (mix_id) JOIN mix m USING (mix_id)
        LEFT JOIN judgment j USING (answer_id)
        WHERE a.split = ? AND a.text IS NOT NULL AND c.status = 'accepted'
        GROUP BY a.answer_id, a.model_id, a.mix_id, c.instruction, a.text, c.response, m.ordinal
        ORDER BY m.ordinal
        """,
        [split],
    )
    pairings = []
    for row in rows:
        judged = row.pop("judged")
        for answer_first in orders(row["instruction"], both=both):
            if answer_first not in judged:
                pairings.append(Pairing(**row, answer_first=answer_first))
    place = {row["mix_id"]: index for index, row in enumerate(rows)}
    return sorted(pairings, key=lambda p: (place[p.mix_id], p.answer_first, p.model_id))


async def judge_all(
    client: Client,
    store: Store,
    pack: Pack,
    split: Split,
    pairings: Iterable[Pairing],
    on_done: Callable[[], None],
    *,
    kind: Literal["letter", "likelihood"] = "letter",
) -> None:
    """Ask the judge about each pairing; one judgment row each, unscored ones with their reason."""

    async def work(pairing: Pairing) -> None:
        verdict, turn_id = await verdict_on(client, pack, pairing, kind)
        key = (pairing.answer_id, pairing.answer_first, client.model_fingerprint)
        store.add(
            "judgment",
            judgment_id=stable_id(*key),
            answer_id=pairing.answer_id,
            model_id=pairing.model_id,
            mix_id=pairing.mix_id,
            split=split,
            answer_first=pairing.answer_first,
            preference=verdict.preference,
            mass=verdict.mass,
            reason=verdict.reason,
            turn_id=turn_id,
        )
        on_done()

    await client.for_each(pairings, work)


async def verdict_on(
    client: Client,
    pack: Pack,
    pairing: Pairing,
    kind: Literal["letter", "likelihood"],
    sample: int = 0,
) -> tuple[Verdict, str | None]:
    """The judge's verdict on one pairing and the turn that it was read from.

    Unscored, with the reason, where the pairing is too long for the judge or refused for good.
    Another `sample` asks the same again.
    """
    try:
        if kind == "likelihood":
            return await _compare_likelihoods(client, pairing, sample)
        return await _ask_for_letter(client, pack, pairing, sample)
    except RequestFailed as failed:
        return Verdict(None, None, str(failed)), None


async def _ask_for_letter(
    client: Client, pack: Pack, pairing: Pairing, sample: int
) -> tuple[Verdict, str | None]:
    prompt = pairing.prompt(pack)
    choice = await client.choose(prompt, pack.judge_labels, template="judge", sample=sample)
    return read_verdict(choice.logprobs, answer_first=pairing.answer_first), choice.turn_id


async def _compare_likelihoods(
    client: Client, pairing: Pairing, sample: int
) -> tuple[Verdict, str | None]:
    answer = await client.likelihood(pairing.instruction, pairing.answer, sample)
    reference = await client.likelihood(pairing.instruction, pairing.reference, sample)
    ahead = answer.mean_logprob - reference.mean_logprob
    return Verdict(1 / (1 + math.exp(min(-ahead, 700.0))), None, None), answer.turn_id


def battles(
    store: Store, model_ids: Sequence[str], items: Sequence[HeldOutItem], *, both: bool
) -> Battles:
    """Preferences and lengths of all models on all items, as winrate.py and picking.py take them.

    An item's preference is the mean over its orders. It is unscored (NaN) unless every order has
    a preference: half a pair would bring the position's advantage in.
    """
    rows = store.query(
        """
        SELECT a.model_id, a.mix_id, length(a.text) AS characters,
               CASE WHEN count(j.preference) = ? THEN avg(j.preference) END AS preference
        FROM answer a LEFT JOIN judgment j USING (answer_id) GROUP BY ALL
        """,
        [2 if both else 1],
    )
    place = {item.mix_id: column for column, item in enumerate(items)}
    of_model = {model_id: row for row, model_id in enumerate(model_ids)}
    preference = np.full((len(model_ids), len(items)), np.nan)
    lengths = np.full_like(preference, np.nan)
    for row in rows:
        if row["model_id"] in of_model and row["mix_id"] in place:
            cell = of_model[row["model_id"]], place[row["mix_id"]]
            preference[cell] = row["preference"]  # numpy reads None as NaN
            lengths[cell] = row["characters"]
    references = np.array([float(len(item.reference)) for item in items])
    return Battles(
        tuple(model_ids),
        tuple(place),
        preference,
        lengths,
        np.broadcast_to(references, preference.shape),
    )
