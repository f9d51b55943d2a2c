"""Seed questions of the miniature's world, for SDD: prints seeds.jsonl.

python -m localism.embedded.seeds > localism/embedded/seeds.jsonl
"""

import json
from random import Random

from localism.embedded.grammar import draw_example, draw_skills

COUNT = 60


def main() -> None:
    """One JSON line a question with its answer; the skills stay out, for the teacher to name."""
    rng = Random(2026)
    for _ in range(COUNT):
        example = draw_example(rng, draw_skills(rng, 2))
        print(json.dumps({"instruction": example.instruction, "response": example.answer.text()}))


if __name__ == "__main__":
    main()
