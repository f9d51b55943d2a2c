"""What every stage is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism.config import Config
from localism.progress import Progress
from localism.store import Store


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

    def warn(self, stage: str, problem: str, **detail: Any) -> None:
        """Say that something looks wrong, and keep it for the report."""
        self.store.event("warning", stage, problem=problem, **detail)
        self.progress.say(f"warning: {problem}")
