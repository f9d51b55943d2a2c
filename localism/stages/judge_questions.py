"""What the checks of a judge ask it, and the preferences that come back.

Every question is a pair of answers, asked as stage pick asks: as many at once as the server can
use, each call a turn of the ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

import numpy as np

from localism.context import Context
from localism.judging.attacks import BRUSH_OFFS, Attack, attacks
from localism.judging.heldout import HeldOutItem
from localism.judging.newton import Array
from localism.judging.pairwise import Pairing, Verdict, orders, verdict_on
from localism.judging.preference_files import RatedPairs
from localism.judging.verdicts import LIKELIHOOD, OWN_DEV, SIDES, Corpus
from localism.prompting.packs import load_pack
from localism.records import stable_id
from localism.serving.client import Client
from localism.stages.pick import Tally
from localism.stages.pick_calibration import Calibration
from localism.store import Store

ATTACKS_AN_ITEM = 8


@dataclass
class Questions:
    """Pairs in the orders in which they are shown, and what the judge says of each."""

    pairings: Sequence[Pairing]
    """All orders of one pair stand together."""
    shown: int
    """Orders of each pair."""
    sample: int = 0
    """Tells the same questions apart that are asked again."""
    known_as: str | None = None
    """The judge, where its verdicts are kept as rows of suite_judgment."""
    preferences: Array = field(init=False)
    """(pairings,) P(the first answer is better); NaN is unscored, or not asked yet."""

    def __post_init__(self) -> None:
        self.preferences = np.full(len(self.pairings), np.nan)

    def of_pairs(self) -> Array:
        """(N,) the mean over the orders of each pair; NaN unless each has a preference."""
        return self.preferences.reshape(-1, self.shown).mean(axis=1)


def questions(pairs: Sequence[Pairing], *, both: bool, known_as: str | None = None) -> Questions:
    """Pairs, in both orders or in the one that their instruction draws."""
    pairings = [
        replace(pair, answer_first=side)
        for pair in pairs
        for side in orders(pair.instruction, both=both)
    ]
    return Questions(pairings, 2 if both else 1, known_as=known_as)


async def ask_all(context: Context, client: Client, asked: Sequence[Questions]) -> None:
    """Ask each in turn; unscored ones stay NaN."""
    pack, kind = load_pack(context.config.prompts.pack), context.config.judge.kind
    total = sum(len(one.pairings) for one in asked)
    tally = Tally(context.progress, client, "judgments", 0, total)
    for one in asked:

        async def ask(number: int, one: Questions = one) -> None:
            verdict, turn_id = await verdict_on(
                client, pack, one.pairings[number], kind, one.sample
            )
            if verdict.preference is not None:
                one.preferences[number] = verdict.preference
            if one.known_as:
                _keep(context.store, one.known_as, one.pairings[number], kind, verdict, turn_id)
            tally.add()

        await client.for_each(range(len(one.pairings)), ask)


def _keep(
    store: Store, judge: str, pairing: Pairing, kind: str, verdict: Verdict, turn_id: str | None
) -> None:
    aspect = LIKELIHOOD if kind == LIKELIHOOD else SIDES[pairing.answer_first]
    store.add(
        "suite_judgment",
        suite_judgment_id=stable_id(OWN_DEV, pairing.mix_id, pairing.model_id, judge, aspect),
        suite=OWN_DEV,
        item_id=pairing.mix_id,
        model_id=pairing.model_id,
        judge=judge,
        aspect=aspect,
        sample=0,
        value=verdict.preference,
        label=None,
        reason=verdict.reason,
        turn_id=turn_id,
    )


def corpus_of(context: Context, own: str) -> Corpus:
    """The verdicts of the run; `own` is what its own judge is called."""
    return Corpus(context.store.query, own, context.config.judge.kind)


# ---- pairs ---------------------------------------------------------------------------------


def pairs_of(rated: RatedPairs) -> list[Pairing]:
    """The pairs that people judged; the first answer counts as the model's."""
    return [
        Pairing("", "", str(number), pair.instruction, pair.first, pair.second, True)
        for number, pair in enumerate(rated.pairs)
    ]


def own_pairs(store: Store, items: Sequence[HeldOutItem]) -> list[Pairing]:
    """Every model's answer to these prompts beside the teacher's, item by item."""
    rows = store.query(
        "SELECT answer_id, model_id, mix_id, text FROM answer"
        " WHERE text IS NOT NULL AND list_contains(?, mix_id) ORDER BY model_id",
        [[item.mix_id for item in items]],
    )
    return [
        Pairing(
            row["answer_id"], row["model_id"], item.mix_id, item.instruction, row["text"],
            item.reference, True,
        )
        for item in items
        for row in rows
        if row["mix_id"] == item.mix_id
    ]  # fmt: skip


# ---- asked again ---------------------------------------------------------------------------


class Retest(NamedTuple):
    """The same questions twice, the second time in another order."""

    first: Questions
    again: Questions
    order: tuple[int, ...]
    """Place in `first` of each question of `again`."""

    def preferences(self) -> tuple[Array, Array]:
        """(pairings,) of both times, in one order."""
        second = np.full(len(self.order), np.nan)
        second[list(self.order)] = self.again.preferences
        return self.first.preferences, second


def retest(pairs: Sequence[Pairing], count: int, *, both: bool, seed: int) -> Retest:
    """A seeded sample of pairs, and all of it once more."""
    random = Random(f"retest {seed}")
    chosen = random.sample(list(pairs), min(count, len(pairs)))
    first = questions(chosen, both=both)
    order = tuple(random.sample(range(len(first.pairings)), len(first.pairings)))
    again = Questions([first.pairings[place] for place in order], first.shown, sample=1)
    return Retest(first, again, order)


# ---- attacks -------------------------------------------------------------------------------


class Attacked(NamedTuple):
    """Bad answers against the references, each alone and with some attacks."""

    questions: Questions
    """Of an item: the answer alone, then with each of its attacks."""
    styles: "np.ndarray"
    """(items, attacks) of what style each attack is."""

    def preferences(self) -> tuple[Array, Array]:
        """(items,) without an attack, and (items, attacks) with one."""
        table = self.questions.of_pairs().reshape(len(self.styles), -1)
        return table[:, 0], table[:, 1:]


def attacked(items: Sequence[HeldOutItem], *, both: bool) -> Attacked:
    """A bad answer to each item: the reference of the next one, or a brush-off, in turn.

    The attacks take turns over the items, so that each is tried on about as many.
    """
    pairs: list[Pairing] = []
    styles: list[list[str]] = []
    for number, item in enumerate(items):
        bad = _bad_answer(items, number)
        mine = _attacks_of(number)
        texts = [bad, *(attack.on(bad) for attack in mine)]
        pairs += [
            Pairing("", "", item.mix_id, item.instruction, text, item.reference, True)
            for text in texts
        ]
        styles.append([attack.style for attack in mine])
    return Attacked(questions(pairs, both=both), np.array(styles, dtype=object))


def _bad_answer(items: Sequence[HeldOutItem], number: int) -> str:
    other = items[(number + 1) % len(items)].reference
    if number % 2 or other == items[number].reference:
        return BRUSH_OFFS[number // 2 % len(BRUSH_OFFS)]
    return other


def _attacks_of(number: int) -> list[Attack]:
    every = attacks()
    return [every[(number * ATTACKS_AN_ITEM + n) % len(every)] for n in range(ATTACKS_AN_ITEM)]


# ---- all of it -----------------------------------------------------------------------------


@dataclass
class Plan:
    """What is to be asked; None where a check is not wanted, or has nothing to ask."""

    judge: str
    """Whom."""
    own: str
    """The run's own judge."""
    kin_of_own: str | None
    """Why that one may favour the references."""
    only: tuple[str, ...]
    """Which checks."""
    rated: RatedPairs | None = None
    """What people said."""
    agreement: Questions | None = None
    """About the same pairs."""
    second: Questions | None = None
    """About dev answers, where this is not the run's own judge."""
    pairs: Questions | None = None
    """Dev answers against the references, each in both orders."""
    retest: Retest | None = None
    """The same, twice."""
    attacked: Attacked | None = None
    """Bad answers."""
    calibration: Calibration | None = None
    """Rewritten references, where stage pick has not asked about them."""

    def asked(self) -> dict[str, list[Questions]]:
        """By check."""
        found = {
            "agreement": [self.agreement],
            "second_judge": [self.second],
            "retest": [self.pairs, self.retest and self.retest.again],
            "injection": [self.attacked and self.attacked.questions],
        }
        some = {name: [one for one in every if one] for name, every in found.items()}
        return {name: every for name, every in some.items() if every}
