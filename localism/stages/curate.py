"""Stage curate: candidates -> accepted or rejected, each gate's verdict and reason kept.

[curate].gates says which gates there are and in which order. A candidate meets them up to the first
that it fails, so that the judge is not asked about a text that is out already. Duplicates are
looked for among those that passed the gates before, test first, then dev, then train, each in the
plan's order: no train instruction can be that of a held-out example, and the outcome does not
depend on which of them was written first.
Alone: localism curate --run NAME
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from localism.context import Context
from localism.curation import gates
from localism.curation.candidate import Candidate, Verdict
from localism.curation.gates import Bounds, Markers
from localism.curation.language import language
from localism.curation.personal import personal_data
from localism.curation.repetition import repetition
from localism.curation.strict import SHOWN, Rejected, too_strict
from localism.curation.talk import refusal, self_talk
from localism.errors import StageError
from localism.judging.pairwise import read_verdict
from localism.paths import embedded
from localism.prompting.packs import Pack, load_pack
from localism.serving.client import Client, RequestFailed
from localism.serving.server import serve
from localism.stages import curate_alike, curate_shirkers
from localism.store import Row, Store
from localism.weights import special_tokens

SPLITS = ("test", "dev", "train")
SHOWN_THRESHOLD = 0.5

Verdicts = dict[str, dict[str, Verdict]]
"""mix_id -> gate -> verdict."""


def run(context: Context) -> str:
    """Decide about all candidates as soon as one is undecided; StageError if a split ends empty.

    All, because a new held-out example may turn an accepted train one into a duplicate. Only the
    judge's verdicts are kept from before; the rest is quick.
    """
    store = context.store
    if store.value("SELECT count(*) FROM candidate WHERE status = 'written'"):
        verdicts = decide(context, _candidates(store))
        _store(store, verdicts, keep_judged=context.config.curate.skills == "judge")
        _count_tokens(store, token_counter(embedded(context.config.student.path)))
    _refuse_empty_split(store)
    return _summary(context)


def _candidates(store: Store) -> list[Candidate]:
    """Everything that was not a failed call, held-out splits first."""
    rows = store.query(
        """
        SELECT m.mix_id, m.split, m.ordinal, c.instruction, c.response, c.reason, t.finish_reason,
               (SELECT list(s.name ORDER BY ms.position)
                FROM mix_skill ms JOIN skill s USING (skill_id)
                WHERE ms.mix_id = m.mix_id) AS skills
        FROM candidate c JOIN mix m USING (mix_id) LEFT JOIN turn t USING (turn_id)
        WHERE c.status <> 'failed'
        ORDER BY list_position(?, m.split), m.ordinal
        """,
        [list(SPLITS)],
    )
    return [Candidate(**{**row, "skills": tuple(row["skills"] or ())}) for row in rows]


def accepted_held_out(store: Store) -> list[Candidate]:
    """The accepted examples of test and dev, which no other example may repeat."""
    accepted = store.query("SELECT mix_id FROM candidate WHERE status = 'accepted'")
    wanted = {row["mix_id"] for row in accepted}
    return [one for one in _candidates(store) if one.split != "train" and one.mix_id in wanted]


def decide(context: Context, candidates: Sequence[Candidate], stage: str = "curate") -> Verdicts:
    """Every gate's verdict, up to the first that fails; model calls are the named stage's."""
    verdicts: Verdicts = {candidate.mix_id: {} for candidate in candidates}
    standing = list(candidates)
    for gate in context.config.curate.gates:
        found = _verdicts_of(context, gate, standing, stage)
        for mix_id, verdict in found.items():
            verdicts[mix_id][gate] = verdict
        # A gate may have nothing to say of a candidate: it goes on.
        passed = [one for one in standing if found.get(one.mix_id, Verdict(True)).passed]
        rejected = [
            Rejected(i, verdict.reason) for i, verdict in found.items() if not verdict.passed
        ]
        if problem := too_strict(gate, len(standing), rejected):
            context.warn(stage, problem, gate=gate, examples=[r.mix_id for r in rejected[:SHOWN]])
        standing = passed
    return verdicts


def _verdicts_of(
    context: Context, gate: str, candidates: Sequence[Candidate], stage: str
) -> dict[str, Verdict]:
    """What one gate says of the candidates that passed those before it."""
    if gate == "skills":
        return _skill_verdicts(context, candidates, stage)
    if gate == "shirker":
        return curate_shirkers.verdicts(context, candidates, stage)
    if gate == "overlap":
        return curate_alike.overlap_verdicts(context, candidates)
    if gate == "duplicate":
        return curate_alike.duplicate_verdicts(context, candidates)
    judge = _gate(context, gate)
    verdicts: dict[str, Verdict] = {}
    for candidate in candidates:
        verdicts[candidate.mix_id] = judge(candidate)
        if len(verdicts) % 1000 == 0:
            context.progress.update(len(verdicts), len(candidates), unit="candidates", detail=gate)
    return verdicts


# ---- gates that look at one candidate ------------------------------------------------------


def _gate(context: Context, name: str) -> Callable[[Candidate], Verdict]:
    """The gate with the thresholds of this run."""
    curate = context.config.curate
    if name == "length":
        return _length_gate(context)
    if name == "markers":
        return partial(gates.no_markers, markers=_markers(context))
    plain: dict[str, Callable[[Candidate], Verdict]] = {
        "parsed": gates.parsed,
        "complete": gates.complete,
        "repetition": partial(
            repetition, most=curate.max_repeated, least_compressed=curate.min_compression
        ),
        "refusal": partial(refusal, most_words=curate.max_refusal_words),
        "self_talk": self_talk,
        "language": partial(language, wanted=curate.languages),
        "personal_data": partial(personal_data, most=curate.max_personal_data),
    }
    return plain[name]


def _length_gate(context: Context) -> Callable[[Candidate], Verdict]:
    curate = context.config.curate
    bounds = Bounds(
        (curate.min_instruction_tokens, curate.max_instruction_tokens),
        (curate.min_response_tokens, curate.max_response_tokens),
    )
    count = token_counter(embedded(context.config.student.path))
    return partial(gates.length, bounds=bounds, count=count)


def token_counter(folder: Path) -> Callable[[str], int]:
    """How many tokens the tokenizer of a model folder makes of a text, control tokens aside."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _markers(context: Context) -> Markers:
    """What must not stay in an example of this run."""
    pack = load_pack(context.config.prompts.pack)
    sections = (context.config.teacher, context.config.student)
    folders = [embedded(section.path) for section in sections if section.path]
    tokens = [token for folder in folders for token in special_tokens(folder)]
    return Markers(pack.instruction_marker, pack.response_marker, gates.special_tokens(tokens))


# ---- skills --------------------------------------------------------------------------------


def _skill_verdicts(
    context: Context, candidates: Sequence[Candidate], stage: str
) -> dict[str, Verdict]:
    """Whether each candidate shows its skills, asked in the way that [curate].skills says."""
    if context.config.curate.skills == "words":
        return {candidate.mix_id: gates.says_skills(candidate) for candidate in candidates}
    judged = _judged(context.store)
    unjudged = [candidate for candidate in candidates if candidate.mix_id not in judged]
    if unjudged:
        asyncio.run(_judge(context, unjudged, len(candidates) - len(unjudged), stage))
        judged = _judged(context.store)
    return {candidate.mix_id: judged[candidate.mix_id] for candidate in candidates}


def _judged(store: Store) -> dict[str, Verdict]:
    rows = store.query("SELECT mix_id, passed, reason, value FROM verdict WHERE gate = 'skills'")
    return {row.pop("mix_id"): Verdict(**row) for row in rows}


async def _judge(context: Context, candidates: Sequence[Candidate], done: int, stage: str) -> None:
    """Ask the judge about every skill; each verdict is stored as soon as it is there."""
    pack = load_pack(context.config.prompts.pack)
    total = done + len(candidates)
    async with serve(context, role="judge", stage=stage) as client:

        async def work(candidate: Candidate) -> None:
            nonlocal done
            verdict = await shows_skills(client, pack, candidate)
            context.store.add_rows("verdict", [_verdict_row(candidate.mix_id, "skills", verdict)])
            done += 1
            speed = f"{client.tokens_per_second():,.0f} tok/s"
            context.progress.update(done, total, unit="candidates", detail=speed)

        await client.for_each(candidates, work)


async def shows_skills(client: Client, pack: Pack, candidate: Candidate) -> Verdict:
    """The judge's verdict; its value is the lowest probability of yes over the skills."""
    probabilities: dict[str, float] = {}
    for skill in candidate.skills:
        prompt = pack.render(
            "shows_skill",
            instruction=candidate.instruction,
            response=candidate.response,
            skill=skill,
        )
        try:
            choice = await client.choose(prompt, pack.skill_labels, "shows_skill")
        except RequestFailed as failed:
            return Verdict(False, f"the judge could not be asked: {failed.reason}")
        answer = read_verdict(choice.logprobs, answer_first=True)
        if answer.preference is None:
            return Verdict(False, answer.reason)
        probabilities[skill] = answer.preference
    missing = [
        f"{skill} ({shown:.2f})"
        for skill, shown in probabilities.items()
        if shown < SHOWN_THRESHOLD
    ]
    reason = f"does not show every skill: {', '.join(missing)}" if missing else None
    return Verdict(not missing, reason, min(probabilities.values(), default=None))


# ---- the corpus ----------------------------------------------------------------------------


def _verdict_row(mix_id: str, gate: str, verdict: Verdict) -> Row:
    return {"mix_id": mix_id, "gate": gate, **verdict._asdict()}


def _store(store: Store, verdicts: Verdicts, *, keep_judged: bool) -> None:
    """All verdicts, in place of those of an earlier call, and what follows from them."""
    # What the judge said stays, unless a gate before it rejects the candidate this time.
    judged = [mix_id for mix_id, found in verdicts.items() if keep_judged and "skills" in found]
    store.execute(
        "DELETE FROM verdict WHERE gate <> 'skills' OR mix_id NOT IN (SELECT unnest(?::TEXT[]))",
        [judged],
    )
    rows = [
        _verdict_row(mix_id, gate, verdict)
        for mix_id, found in verdicts.items()
        for gate, verdict in found.items()
    ]
    if rows:
        store.add_rows("verdict", rows)
    store.execute("""
        UPDATE candidate SET status = decided.status, reason = decided.reason
        FROM (
            SELECT mix_id, CASE WHEN bool_and(passed) THEN 'accepted' ELSE 'rejected' END AS status,
                   any_value(reason) FILTER (NOT passed) AS reason
            FROM verdict GROUP BY mix_id
        ) AS decided
        WHERE candidate.mix_id = decided.mix_id AND candidate.status <> 'failed'
    """)


def _count_tokens(store: Store, count: Callable[[str], int]) -> None:
    """How long every example is for the student."""
    rows = store.query(
        "SELECT mix_id, instruction, response FROM candidate"
        " WHERE instruction IS NOT NULL AND response IS NOT NULL"
    )
    store.execute(
        "UPDATE candidate SET instruction_tokens = counted.asked, response_tokens = counted.said"
        " FROM (SELECT unnest(?::TEXT[]) AS mix_id, unnest(?::BIGINT[]) AS asked,"
        " unnest(?::BIGINT[]) AS said) AS counted WHERE candidate.mix_id = counted.mix_id",
        [
            [row["mix_id"] for row in rows],
            [count(row["instruction"]) for row in rows],
            [count(row["response"]) for row in rows],
        ],
    )


def _refuse_empty_split(store: Store) -> None:
    empty = store.query("""
        SELECT m.split, count(*) AS planned
        FROM mix m LEFT JOIN candidate c USING (mix_id)
        GROUP BY m.split HAVING count(*) FILTER (c.status = 'accepted') = 0 ORDER BY m.split
    """)
    if not empty:
        return
    split, planned = empty[0]["split"], empty[0]["planned"]
    reasons = store.query(
        """
        SELECT gate, reason, sum(n)::BIGINT AS n FROM rejections WHERE split = ?
        GROUP BY ALL ORDER BY n DESC, gate, reason LIMIT 3
        """,
        [split],
    )
    listed = "; ".join(f"{row['gate']}: {row['reason']} ({row['n']})" for row in reasons)
    raise StageError(
        f"no {split} example of {planned:,} passed the gates",
        where=listed or "no candidate was written",
        fix="read some with localism sql \"SELECT * FROM candidate WHERE status = 'rejected'\";"
        " then another teacher, [prompts].pack or [curate] setting, and localism fork",
    )


def _summary(context: Context) -> str:
    """For instance 'kept 4,012 of 4,100 (train 3,812, dev 80, test 120); out: 88 skills'."""
    store = context.store
    kept = {
        row["split"]: row["n"]
        for row in store.query("""
            SELECT m.split, count(*) AS n FROM candidate c JOIN mix m USING (mix_id)
            WHERE c.status = 'accepted' GROUP BY m.split
        """)
    }
    looked_at = store.value("SELECT count(*) FROM candidate WHERE status <> 'failed'")
    by_gate = _rejected_by_gate(store)
    gates_in_order = [gate for gate in context.config.curate.gates if gate in by_gate]
    out = ", ".join(
        f"{len(by_gate[gate][1]):,} {gate}" for gate in gates_in_order if by_gate[gate][1]
    )
    alarms = [too_strict(gate, *by_gate[gate]) for gate in gates_in_order]
    splits = ", ".join(f"{split} {kept.get(split, 0):,}" for split in reversed(SPLITS))
    text = f"kept {sum(kept.values()):,} of {looked_at:,} ({splits})"
    text += f"; out: {out}" if out else ""
    return "\n".join([text, *filter(None, alarms)])


def _rejected_by_gate(store: Store) -> dict[str, tuple[int, list[Rejected]]]:
    """Gate -> (candidates that it was shown, those that it rejected in the order of decide)."""
    rows = store.query(
        """
        SELECT gate, count(*) AS reached,
               list({mix_id: mix_id, reason: reason}
                    ORDER BY list_position(?, split), ordinal) FILTER (NOT passed) AS rejected
        FROM verdict JOIN mix USING (mix_id) GROUP BY gate
        """,
        [list(SPLITS)],
    )
    return {
        row["gate"]: (row["reached"], [Rejected(**one) for one in row["rejected"] or []])
        for row in rows
    }
