"""What every stage is given."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism.config import Config
from localism.progress import Progress
from localism.store import Store

# What is under way at the deadline may take so much longer.
GRACE_SECONDS = 300.0


@dataclass(frozen=True)
class Context:
    """A run that is open for work."""

    config: Config
    """The frozen recipe."""
    store: Store
    """The corpus, open for writing."""
    folder: Path
    """The run folder: logs/, checkpoints/, export/, report.html."""
    progress: Progress
    """Where to say how far it is."""
    deadline: float = math.inf
    """Moment of time.monotonic() from which on nothing new is begun (--budget-hours)."""

    def time_left(self) -> float:
        """Seconds until the deadline; below 0 after it, infinite without one."""
        return self.deadline - time.monotonic()

    def warn(self, stage: str, problem: str, **detail: Any) -> None:
        """Say that something looks wrong, and keep it for the report."""
        self.store.event("warning", stage, problem=problem, **detail)
        self.progress.say(f"warning: {problem}")

    def more_skills(self) -> str:
        """How this run could have had more skills, by where its own come from; for advice."""
        sources = {
            row["source"] for row in self.store.query("SELECT DISTINCT source FROM skill_label")
        }
        ways = []
        if "sda" in sources and self.config.extract.taxonomy:
            ways.append("more topics in the taxonomy or a higher [extract].skills_per_topic")
        elif "sda" in sources:
            ways.append("a higher [extract].topics or skills_per_topic")
        if "sdd" in sources:
            ways.append("more seed data ([extract].seeds, seed_examples)")
        if sources - {"sda", "sdd"}:
            ways.append("a longer list in `localism skills import`")
        return "get more skills" + (f": {', or '.join(ways)}" if ways else "")
