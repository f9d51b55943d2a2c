"""Seed questions of the miniature's world, for SDD: prints seeds.jsonl.

python -m localism.embedded.seeds > localism/embedded/seeds.jsonl
"""

import json
from random import Random

from localism.embedded.grammar import draw_example, draw_skills

COUNT = 320


def main() -> None:
    """One JSON line a question with its answer; the skills stay out, for the teacher to name."""
    rng = Random(2026)
    written: dict[str, str] = {}  # by instruction: the same one twice would count once
    while len(written) < COUNT:
        example = draw_example(rng, draw_skills(rng, 2))
        written.setdefault(example.instruction, example.answer.text())
    for instruction, response in written.items():
        print(json.dumps({"instruction": instruction, "response": response}))


if __name__ == "__main__":
    main()
