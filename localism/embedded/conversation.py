"""What training conversations are made of: turns, prompts of prompts/compact, drawn examples.

Prompts come from the very template files that the pipeline renders. A new wording there asks for
new training.
"""

from dataclasses import dataclass
from random import Random

from localism.embedded.grammar import Example, draw_example, draw_skills
from localism.embedded.world import QUERY_TYPES
from localism.prompting.packs import load_pack

LABELS = ("m", "M")


@dataclass(frozen=True)
class Turn:
    """One user message, the reply, and how much the reply's tokens count in the loss."""

    user: str
    """Rendered prompt."""
    assistant: str
    """Wanted reply."""
    weight: float = 1.0
    """0 shows a reply (a flawed draft) without teaching it."""


def render(template: str, **values: object) -> str:
    """A prompt of the compact pack."""
    return load_pack("compact").render(template, **values)


def query_type_record(name: str) -> dict[str, str]:
    """A query type as draft.txt reads it."""
    return {"name": name, "definition": QUERY_TYPES[name]}


def example_text(instruction: str, response: str) -> str:
    """Instruction and response under the pack's markers."""
    pack = load_pack("compact")
    return f"{pack.instruction_marker}\n{instruction}\n{pack.response_marker}\n{response}"


def mixed_skills(rng: Random) -> tuple[str, ...]:
    """Mostly two skills, of the list or new combinations, of the train split."""
    count = rng.choices([1, 2, 3], [12, 64, 24])[0]
    return draw_skills(rng, count, new_share=rng.choice([0.0, 0.35, 0.7]))


def mixed_example(rng: Random) -> Example:
    """An example for mixed_skills."""
    return draw_example(rng, mixed_skills(rng))
