"""Serving: start a vLLM or use servers that run already, and talk to them through the ledger."""

from pathlib import Path
from typing import Protocol

from localism.config import Config
from localism.progress import Progress
from localism.store import Store


class Surroundings(Protocol):
    """What serving needs of a run; stages.Context is one."""

    @property
    def config(self) -> Config:
        """The frozen recipe."""

    @property
    def store(self) -> Store:
        """The corpus, for turns and events."""

    @property
    def folder(self) -> Path:
        """The run folder, for logs/."""

    @property
    def progress(self) -> Progress:
        """Where to say that an engine starts."""
