"""The half of stage curate that catches shirkers: calibrates the gate and scores every candidate.

For a seeded sample of instructions the teacher writes a brief and a careless answer (templates
brevity and junk of the prompt pack). The judge scores those and the real ones, shirkers.calibrate
fits the gate, and every candidate is scored. All calls are turns of the ledger, so a resumed or
forked run pays for none of them twice; the outcome is an event, shirkers_calibrated.
"""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random

from localism.context import Context
from localism.curation.candidate import Candidate, Verdict
from localism.curation.shirkers import Answer, Gate, Sample, calibrate, expected_rating
from localism.parsing.debris import bare_answer
from localism.prompting.packs import Pack, load_pack
from localism.records import Reply
from localism.serving.client import Client, RequestFailed
from localism.serving.server import serve
from localism.tables import number_of

POOR = ("brevity", "junk")
RATINGS = ("1", "2", "3", "4", "5")
# With fewer, neither the fit nor the measured shares mean anything.
LEAST_INSTRUCTIONS = 20
LOW_RECALL = 0.9

Key = tuple[str, str]
"""(kind of answer, mix_id)."""


def verdicts(context: Context, candidates: Sequence[Candidate], stage: str) -> dict[str, Verdict]:
    """The gate's verdict on each candidate; those that could not be scored pass, and are counted.

    With too few candidates to calibrate on nothing is judged, and a warning says so.
    """
    if len(candidates) < 2 * LEAST_INSTRUCTIONS:
        context.warn(
            stage,
            f"too few to calibrate the gate for shirkers: {number_of(len(candidates), 'candidate')}"
            f"; it wants {2 * LEAST_INSTRUCTIONS}",
        )
        return {}
    return asyncio.run(Shirkers(context, stage).judge(candidates))


class Shirkers:
    """One call of the stage's half."""

    def __init__(self, context: Context, stage: str) -> None:
        self._context, self._config, self._stage = context, context.config, stage
        self._pack = load_pack(context.config.prompts.pack)
        self._done = 0

    async def judge(self, candidates: Sequence[Candidate]) -> dict[str, Verdict]:
        """Poor answers, then scores, then the gate, then everybody."""
        chosen = self._chosen(candidates)
        poor: dict[Key, str] = {}
        role = "teacher" if self._config.judge.same_as else "judge"
        async with serve(self._context, "teacher", self._stage) as teacher:
            await self.write_poor(teacher, chosen, poor)
            if role == "teacher":  # one engine start for both
                return await self._decide(teacher, candidates, chosen, poor)
        async with serve(self._context, role, self._stage) as judge:
            return await self._decide(judge, candidates, chosen, poor)

    def _chosen(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those to calibrate on: training ones where there are enough, in a seeded order."""
        train = [c for c in candidates if c.split == "train"]
        pool = train if len(train) >= 2 * LEAST_INSTRUCTIONS else list(candidates)
        count = min(self._config.curate.shirker_calibration, len(pool))
        return Random(f"shirkers {self._config.seed}").sample(pool, count)

    async def write_poor(
        self, client: Client, chosen: Sequence[Candidate], poor: dict[Key, str]
    ) -> None:
        """Have the teacher answer the chosen instructions badly; what failed is left out."""

        async def ask(task: tuple[Candidate, str]) -> None:
            candidate, kind = task
            try:
                reply = await poor_answer(client, self._pack, kind, candidate.instruction or "")
            except RequestFailed:
                return
            if answer := bare_answer(reply.text):
                poor[kind, candidate.mix_id] = answer
            self._progress(len(poor), len(tasks), "poor answers", client)

        tasks = [(candidate, kind) for candidate in chosen for kind in POOR]
        await client.for_each(tasks, ask)

    async def _decide(
        self,
        client: Client,
        candidates: Sequence[Candidate],
        chosen: Sequence[Candidate],
        poor: dict[Key, str],
    ) -> dict[str, Verdict]:
        texts = {("real", c.mix_id): (c.instruction or "", c.response or "") for c in candidates}
        for c in chosen:
            for kind in POOR:
                if text := poor.get((kind, c.mix_id)):
                    texts[kind, c.mix_id] = (c.instruction or "", text)
        scores = await self.scores(client, texts)
        answers = {
            key: Answer(*texts[key], score) for key, score in scores.items() if score is not None
        }
        wanted = {c.mix_id for c in chosen}
        samples = [
            Sample(mix_id, kind, answer)
            for (kind, mix_id), answer in answers.items()
            if mix_id in wanted
        ]
        gate = calibrate(samples, self._config.curate.shirker_false_alarms)
        self._report(gate, unscored=len(texts) - len(answers))
        return {
            mix_id: gate.verdict(answer)
            for (kind, mix_id), answer in answers.items()
            if kind == "real"
        }

    async def scores(
        self, client: Client, texts: Mapping[Key, tuple[str, str]]
    ) -> dict[Key, float | None]:
        """The judge's score of each (instruction, response), in the order of `texts`."""
        scores: dict[Key, float | None] = {}

        async def ask(key: Key) -> None:
            scores[key] = await score(client, self._pack, self._config.judge.kind, *texts[key])
            self._progress(len(scores), len(texts), "answers scored", client)

        await client.for_each(texts, ask)
        return {key: scores[key] for key in texts}

    def _report(self, gate: Gate, unscored: int) -> None:
        self._context.store.event(
            "shirkers_calibrated",
            self._stage,
            threshold=gate.threshold,
            recall=gate.recall,
            false_alarms=gate.false_alarms,
            held_out=gate.held_out,
            unscored=unscored,
        )
        low = {kind: share for kind, share in gate.recall.items() if share < LOW_RECALL}
        if low:
            named = ", ".join(f"{share:.0%} of {kind}" for kind, share in low.items())
            self._context.warn(
                self._stage,
                f"the gate for shirkers catches only {named}"
                f" (at {gate.false_alarms:.0%} false alarms); a stronger judge may do better",
            )

    def _progress(self, done: int, total: int, unit: str, client: Client) -> None:
        speed = f"{client.tokens_per_second():,.0f} tok/s"
        self._context.progress.update(done, total, unit=unit, detail=speed)


async def poor_answer(client: Client, pack: Pack, kind: str, instruction: str) -> Reply:
    """The teacher's brief or careless reply (paper, section 3.5); raises RequestFailed."""
    sampling = next(turn.sampling for turn in reversed(pack.turns))
    prompt = pack.render(kind, instruction=instruction)
    return await client.conversation().say(prompt, template=kind, sampling=sampling)


async def score(
    client: Client, pack: Pack, kind: str, instruction: str, response: str
) -> float | None:
    """The judge's score of one answer; None when it could not be had.

    A likelihood judge: mean log-probability of the answer's tokens, in nats. A letter judge: the
    expected rating, 1 to 5, over the exact probabilities of the rating labels.
    """
    try:
        if kind == "likelihood":
            return (await client.likelihood(instruction, response)).mean_logprob
        prompt = pack.render("rate", instruction=instruction, response=response)
        choice = await client.choose(prompt, RATINGS, "rate")
    except RequestFailed:
        return None
    return expected_rating(dict(zip(RATINGS, choice.logprobs, strict=True)))[0]
