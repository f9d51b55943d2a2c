"""The typed rows that cross stage borders.  Table rows as such live in schema.sql."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

STAGES = (
    "extract",
    "cluster",
    "mix",
    "generate",
    "curate",
    "train",
    "pick",
    "evaluate",
    "report",
)
"""In pipeline order."""
LOCK = "run.lock"
"""File of a run folder that the process which works on it has locked."""

Split = Literal["train", "dev", "test"]
Role = Literal["teacher", "judge", "student"]


def stable_id(*parts: Any) -> str:
    """Sixteen hex digits that depend on the content of the parts alone, never on arrival order.

    The parts are hashed as canonical JSON (sorted keys, no spaces). This is a contract: ids in
    old corpora were made with it, and the turn ledger finds its cached turns by it.
    """
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sampling:
    """How one reply is sampled."""

    temperature: float
    """0 is greedy."""
    top_p: float
    """Nucleus mass."""
    max_tokens: int
    """Longest reply, in tokens."""

    def as_json(self) -> str:
        """Canonical JSON, part of a turn's id."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Reply:
    """What a model answered to one user message; its row in the ledger is table turn."""

    turn_id: str
    """Ledger key: model fingerprint, conversation so far, sampling and sample number, hashed."""
    text: str
    """The reply, verbatim."""
    finish_reason: str
    """stop, or length when the reply was cut off at max_tokens."""
    prompt_tokens: int
    """Tokens of the whole conversation sent."""
    completion_tokens: int
    """Tokens of the reply."""
    from_ledger: bool
    """True when the ledger had it and the model was not asked."""


@dataclass(frozen=True)
class Choice:
    """Exact probabilities that a model gave to a few one-token replies."""

    turn_id: str
    """Ledger key, as for Reply."""
    logprobs: tuple[float, ...]
    """Natural-log probability of each label over the full vocabulary, before any masking."""
    from_ledger: bool
    """True when the ledger had it and the model was not asked."""


@dataclass(frozen=True)
class Likelihood:
    """How probable a model finds a given reply to an instruction."""

    turn_id: str
    """Ledger key, as for Reply."""
    mean_logprob: float
    """Natural-log probability of the reply's tokens, its end included; mean over the tokens."""
    from_ledger: bool
    """True when the ledger had it and the model was not asked."""


@dataclass(frozen=True)
class Mix:
    """A planned example: k skills, a query type and a split."""

    mix_id: str
    """Stable id, from the seed and the ordinal."""
    ordinal: int
    """Position in the design, 0-based, over all splits."""
    split: Split
    """train, dev or test."""
    skills: tuple[str, ...]
    """Skill names, in the order in which the prompt lists them."""
    query_type: str | None
    """Name of the query type."""
    query_type_definition: str | None
    """Its definition."""


@dataclass(frozen=True)
class SuiteOptions:
    """What `localism evaluate --suite` was asked for."""

    suites: tuple[str, ...]
    """Names of benchmarks, or files of prompts."""
    models: tuple[str, ...] = ("picked", "base")
    """picked, base, a checkpoint_id, or the path of a model folder."""
    judge: str | None = None
    """Folder of another judge than the run's own."""
    may_sample: bool = False
    """Take the sample that ships where nothing is staged."""
    limit: int | None = None
    """Only the first items of each suite."""
    allow_unsandboxed_code: bool = False
    """Run programs that a model wrote for HumanEval even where no sandbox can be made."""
