"""The part of stage pick that measures the judge: its taste for length, its bias for a position.

A seeded sample of dev references is rewritten longer and shorter by the teacher (templates longer
and shorter of the prompt pack) and judged against the originals; calibration.py makes a slope of
the verdicts, which enters the length control of the checkpoints. All calls are turns of the ledger,
so that a resumed or forked run pays for none twice. What came out are scores of model 'judge' on
dev; where nothing could be measured the score is NULL and its note says why.
"""

from collections.abc import Sequence
from random import Random

import numpy as np

from localism.context import Context
from localism.judging import scores
from localism.judging.calibration import (
    KINDS,
    LengthSlope,
    changed_enough,
    kinship,
    length_slope,
    position_bias,
)
from localism.judging.heldout import HeldOutItem
from localism.judging.newton import Array
from localism.judging.pairwise import Pairing, orders, verdict_on
from localism.judging.scores import Score
from localism.judging.winrate import BattleRow, battles_from_rows
from localism.parsing.debris import bare_answer
from localism.prompting.packs import load_pack
from localism.serving.client import Client, RequestFailed
from localism.serving.server import serve
from localism.store import Store

JUDGE = "judge"
MANY_FLIPS = 100 / 3

Key = tuple[str, str]
"""(kind of rewrite, mix_id)."""


class Calibration:
    """The judge's verdicts on rewritten references, collected in one call of the stage."""

    def __init__(self, context: Context, items: Sequence[HeldOutItem]) -> None:
        self._context, self._config = context, context.config
        self._pack = load_pack(context.config.prompts.pack)
        count = min(self._config.pick.calibration, len(items))
        chosen = Random(f"calibration {self._config.seed}").sample(list(items), count)
        self._items = {item.mix_id: item for item in chosen}
        self._rewrites: dict[Key, str] = {}
        self._preferences: dict[Key, list[float | None]] = {}
        self.impossible = self._why_impossible()
        """Why nothing can be measured; None when it can."""

    def _why_impossible(self) -> str | None:
        missing = [kind for kind in KINDS if not self._pack.has(kind)]
        if not self._config.pick.calibration:
            return "[pick].calibration is 0"
        if missing:
            named = " and ".join(missing)
            return f"prompt pack {self._pack.name} has no template {named}: no rewritten references"
        return None

    @property
    def calls(self) -> int:
        """Most questions to the judge."""
        return len(self._items) * len(KINDS) * (1 + self._config.both_orders())

    async def rewrite(self) -> None:
        """Have the teacher rewrite, in an engine of its own unless it is the judge's too."""
        if self.impossible or self._config.judge.same_as:
            return
        async with serve(self._context, "teacher", "pick") as teacher:
            await self._rewrite(teacher)

    async def judge(self, judge: Client) -> None:
        """Compare each rewrite with its original, in both orders unless pairs have a single one."""
        if self.impossible:
            return
        if self._config.judge.same_as:
            await self._rewrite(judge)
        both = self._config.both_orders()
        pairings = [
            Pairing("", kind, mix_id, item.instruction, text, item.reference, answer_first)
            for (kind, mix_id), text in self._rewrites.items()
            for item in [self._items[mix_id]]
            for answer_first in orders(item.instruction, both=both)
        ]

        async def ask(pairing: Pairing) -> None:
            verdict, _ = await verdict_on(judge, self._pack, pairing, self._config.judge.kind)
            found = self._preferences.setdefault((pairing.model_id, pairing.mix_id), [])
            found.append(verdict.preference)
            done = sum(map(len, self._preferences.values()))
            self._context.progress.update(done, len(pairings), unit="calibrating judgments")

        await judge.for_each(pairings, ask)

    async def _rewrite(self, teacher: Client) -> None:
        sampling = next(turn.sampling for turn in reversed(self._pack.turns))
        wanted = [(kind, item) for item in self._items.values() for kind in KINDS]
        asked = 0

        async def ask(task: tuple[str, HeldOutItem]) -> None:
            nonlocal asked
            kind, item = task
            values = {"instruction": item.instruction, "response": item.reference}
            prompt = self._pack.render(kind, **values)
            try:
                reply = await teacher.conversation().say(prompt, template=kind, sampling=sampling)
            except RequestFailed:
                return
            text = bare_answer(reply.text)
            is_whole = reply.finish_reason == "stop"
            if text and is_whole and changed_enough(item.reference, text, kind):
                self._rewrites[kind, item.mix_id] = text
            asked += 1
            self._context.progress.update(asked, len(wanted), unit="rewritten references")

        await teacher.for_each(wanted, ask)

    # ---- what came of it ---------------------------------------------------------------------

    def settle(self) -> None:
        """Write the scores of the judge, and warn of what makes them doubtful."""
        found = [self.slope_score(), *self._position_scores()]
        scores.write(self._context.store, "dev", found, training="")
        if kin := kinship(self._config):
            self._warn(
                f"{kin}, and every answer is compared with the teacher's own: expect the judge to"
                " favour those; a fork with another judge shows by how much"
            )

    def _slope(self) -> LengthSlope | None:
        rows = [
            BattleRow(
                kind, mix_id, self._preference((kind, mix_id)), len(text), len(item.reference)
            )
            for kind in KINDS
            for mix_id, item in self._items.items()  # in one order, whoever answered first
            if (text := self._rewrites.get((kind, mix_id)))
        ]
        if {row.model for row in rows} != set(KINDS):
            return None
        resamples = self._config.pick.bootstrap
        return length_slope(battles_from_rows(rows), seed=self._config.seed, resamples=resamples)

    def _preference(self, key: Key) -> float | None:
        """The mean over the orders; None unless each has one."""
        found = self._preferences.get(key, [None])
        scored = [preference for preference in found if preference is not None]
        return sum(scored) / len(scored) if len(scored) == len(found) else None

    def slope_score(self) -> Score:
        """The judge's taste for length; NULL, with the reason, where it could not be measured."""
        slope = None if self.impossible else self._slope()
        asked = 0 if self.impossible else len(self._items)
        if slope is None:
            note = self.impossible or "too few rewrites became longer and shorter and were judged"
            return Score(JUDGE, "dev", "length_slope", None, None, None, 0, asked, note)
        note = (
            f"of rewritten references longer ones are preferred in {slope.longer:.1f}%, "
            f"shorter ones in {slope.shorter:.1f}%"
        )
        return Score(
            JUDGE, "dev", "length_slope", slope.value, *slope.bounds, slope.n,
            asked - slope.n, note,
        )  # fmt: skip

    def _position_scores(self) -> list[Score]:
        """Of a judge that is shown each pair in both orders; nothing of another."""
        if not self._config.both_orders():
            return []
        first, second = shown_both_ways(self._context.store)
        bias = position_bias(first, second, seed=self._config.seed)
        advantage = bias.advantage
        n, unscored = advantage.n, advantage.unscored
        share = 100 * bias.flips / n if n else None
        if share is not None and share > MANY_FLIPS:
            self._warn(
                f"the judge's verdict turns with the order of the answers in {share:.0f}% of pairs:"
                " what both orders leave of it is weak; a stronger judge would tell more"
            )
        return [
            Score(
                JUDGE, "dev", "position_advantage", advantage.value, advantage.low, advantage.high,
                n, unscored, "preference for an answer when shown first, minus when shown second",
            ),
            Score(
                JUDGE, "dev", "position_flips", share, *scores.wilson(bias.flips, n), n, unscored,
                "pairs whose winner changes with the order",
            ),
        ]  # fmt: skip

    def _warn(self, problem: str) -> None:
        """Once a run, however often it is picked."""
        said = self._context.store.value(
            "SELECT count(*) FROM event WHERE kind = 'warning' AND stage = 'pick'"
            " AND detail->>'problem' = ?",
            [problem],
        )
        if not said:
            self._context.warn("pick", problem)


def shown_both_ways(store: Store) -> tuple[Array, Array]:
    """Preferences (N,) of all judged dev answers when shown first and when shown second."""
    rows = store.query(
        "SELECT max(preference) FILTER (answer_first) AS first,"
        " max(preference) FILTER (NOT answer_first) AS second"
        " FROM judgment WHERE split = 'dev' GROUP BY answer_id ORDER BY answer_id"
    )
    columns = np.array([(row["first"], row["second"]) for row in rows], dtype=float)
    return (columns[:, 0], columns[:, 1]) if rows else (np.zeros(0), np.zeros(0))
