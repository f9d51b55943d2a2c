"""WildBench's rules: its tasks and their weights, who is shown first, lengths, verdicts to rewards.

As in allenai/WildBench (src/eval.py, src/view_wb_eval.py and the leaderboard's own tables), v2.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

TASKS = {
    "Information seeking": "Information/Advice seeking",
    "Advice seeking": "Information/Advice seeking",
    "Creative Writing": "Creative Tasks",
    "Editing": "Creative Tasks",
    "Brainstorming": "Creative Tasks",
    "Role playing": "Creative Tasks",
    "Others": "Creative Tasks",
    "Reasoning": "Planning & Reasoning",
    "Planning": "Planning & Reasoning",
    "Math": "Math & Data Analysis",
    "Data Analysis": "Math & Data Analysis",
    "Coding & Debugging": "Coding & Debugging",
}
"""The five tasks that its twelve tags are counted under."""
TASK_WEIGHTS = {
    "Creative Tasks": 0.5,
    "Planning & Reasoning": 1.25,
    "Math & Data Analysis": 1.0,
    "Information/Advice seeking": 0.75,
    "Coding & Debugging": 1.25,
}
TASK_SHARES = {task: weight / sum(TASK_WEIGHTS.values()) for task, weight in TASK_WEIGHTS.items()}
"""The same, summing to one: a task macro is the sum of share times mean."""
REFERENCES = ("gpt-4-turbo-2024-04-09", "claude-3-haiku-20240307", "Llama-2-70b-chat-hf")
"""Whose answers the leaderboard compares with."""
CHOICES = {"A++": 1.0, "A+": 0.5, "A=B": 0.0, "B+": -0.5, "B++": -1.0}
"""What each verdict is worth to the answer shown as A."""
SLIGHT = 0.5
OFF, MARGIN = -1, 500
"""Characters by which a slight winner may be longer; a negative margin switches the rule off."""
LOWEST, HIGHEST = 1, 10
MOST_WORDS = 1000
CUT = "... (truncated)"
SIDES_SEED = 42


def sides(items: int) -> list[bool]:
    """Whether the model's answer is A, for each item in the dataset's order; alike for all models.

    The official code draws one number an item from a generator that starts at 42.
    """
    generator = random.Random(SIDES_SEED)
    return [generator.random() < 0.5 for _ in range(items)]


def shown(text: str) -> str:
    """A part of a prompt as the judge sees it: no more than 1,000 words, parted by spaces."""
    words = text.split(" ")
    return text if len(words) <= MOST_WORDS else " ".join(words[:MOST_WORDS]) + CUT


def is_left_out(text: str) -> bool:
    """Whether the leaderboard leaves such an answer out: it is empty, or was cut for the judge."""
    return not text.strip() or shown(text).endswith(CUT)


def is_empty(text: str) -> bool:
    """Whether an answer is judged without the judge."""
    return not text.strip()


def reward_of_empty(answer: str, reference: str) -> float | None:
    """The verdict where one of the two is empty, which nobody has to be asked for; else None."""
    if is_empty(answer) or is_empty(reference):
        return float(is_empty(reference)) - float(is_empty(answer))
    return None


def with_margin(reward: float, longer_by: int, margin: int) -> float:
    """The reward under the length rule; longer_by: characters of the answer minus the reference's.

    A slight win or loss becomes a tie when the winner is longer by more than the margin.
    """
    is_longer = longer_by > margin if reward > 0 else -longer_by > margin
    return 0.0 if margin >= 0 and abs(reward) == SLIGHT and is_longer else reward


def leaderboard_reward(rewards: Sequence[float], items: int) -> float | None:
    """The leaderboard's way of dividing: items that were left out are in `items`, as if ties."""
    return sum(rewards) / items if items else None


def read_reply(reply: str, key: str) -> Mapping[str, Any] | None:
    """The verdict of a reply that should be a JSON object: its `key`, or None.

    As the official code does, a reply that is no whole object is searched for "key": value; of
    several the last counts, for the verdict is written last and what is before it may be quoted.
    """
    text = reply.strip()
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text, re.DOTALL)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found if key in found else None
    values = re.findall(rf'"{key}"\s*:\s*"?([^",}}\n]*)', text)
    return {key: values[-1].strip()} if values else None
