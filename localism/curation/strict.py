"""A gate that rejects most of what reaches it: more often a wrong setting than a bad teacher."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from localism.config import Gate

MOST = 0.5
# Of fewer candidates half are soon gone by chance.
LEAST_REACHED = 20
SHOWN = 3

KEYS: dict[Gate, str] = {
    "parsed": "[prompts].pack",
    "complete": "max_tokens of the turns of [prompts].pack",
    "length": "[curate].min_instruction_tokens, max_instruction_tokens, min_response_tokens or"
    " max_response_tokens",
    "markers": "[prompts].pack",
    "repetition": "[curate].max_repeated or min_compression",
    "refusal": "[curate].max_refusal_words",
    "self_talk": "[curate].gates, without self_talk",
    "language": "[curate].languages",
    "personal_data": "[curate].max_personal_data",
    "overlap": "[curate].overlap_words, overlap_share or overlap_cosine",
    "skills": "[curate].skills",
    "shirker": "[curate].shirker_false_alarms",
    "duplicate": "[curate].duplicates_by, near_duplicate or near_cosine",
}
"""What to change where a gate is too strict."""


class Rejected(NamedTuple):
    """A candidate that a gate rejects."""

    mix_id: str
    """Its mix."""
    reason: str | None
    """Why."""


def too_strict(gate: Gate, reached: int, rejected: Sequence[Rejected]) -> str | None:
    """What to say of a gate that rejects more than half of at least 20; None of any other."""
    if reached < LEAST_REACHED or len(rejected) <= MOST * reached:
        return None
    kinds = Counter((one.reason or "no reason").split(": ")[0] for one in rejected)
    (reason, times), *_ = kinds.most_common(1)
    shown = ", ".join(one.mix_id for one in rejected[:SHOWN])
    return (
        f"gate {gate} rejected {len(rejected):,} of the {reached:,} examples that reached it"
        f" ({times:,}: {reason}), for instance {shown}: read them with `localism why`;"
        f" if they are good, change {KEYS[gate]}"
    )
