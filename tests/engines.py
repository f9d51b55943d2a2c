"""Shared by all tests: a run folder with a corpus, and one real engine for the whole session.

`new_context` makes a run folder; `teacher` is a started vLLM with the embedded teacher (one start,
about half a minute, for all tests that need one). Tests of stages give `teacher.endpoints` to their
configuration, so that a stage that calls serve() talks to this engine instead of starting its own.
"""

import asyncio
import io
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localism.config import Config
from localism.context import Context
from localism.models_toml import validate
from localism.progress import Progress
from localism.serving.client import Client
from localism.serving.server import serve
from localism.store import Store

EMBEDDED: dict[str, dict[str, Any]] = {
    "teacher": {
        "path": "embedded:teacher",
        "dtype": "float32",  # as in models.toml, and exact enough to compare with transformers
        "max_num_seqs": 64,
        "start_timeout_seconds": 400,
    },
    "judge": {"same_as": "teacher"},
    "student": {"path": "embedded:student", "max_num_seqs": 64, "start_timeout_seconds": 400},
    "prompts": {"pack": "compact"},
}


def embedded_config(seed: int = 0, **sections: dict[str, Any]) -> Config:
    """The embedded models; keywords change keys of a table: teacher={"max_model_len": 512}."""
    tables: dict[str, Any] = {name: dict(table) for name, table in EMBEDDED.items()}
    for name, table in sections.items():
        tables[name] = {**tables.get(name, {}), **table}
    return validate({"seed": seed, **tables}, "models.toml")


def behind_endpoints(role: str, urls: tuple[str, ...], key_file: Path) -> dict[str, Any]:
    """A table for embedded_config that serves a role from servers that run already."""
    return {
        role: {"path": "", "endpoints": urls, "api_key_file": str(key_file), "max_num_seqs": 64}
    }


NewContext = Callable[..., Context]


@pytest.fixture
def new_context(tmp_path: Path) -> Iterator[NewContext]:
    """new_context(config, name="run"): a run folder with an open corpus; closed after the test."""
    with ExitStack() as opened:

        def make(config: Config | None = None, name: str = "run") -> Context:
            return opened.enter_context(_Run(tmp_path / name, config or embedded_config())).context

        yield make


class _Run:
    """A run folder and its Context, open while the block runs."""

    def __init__(self, folder: Path, config: Config) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        progress = Progress(io.StringIO(), plain=True)
        self.context = Context(config, Store(folder / "corpus.duckdb"), folder, progress)

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.store.close()


@dataclass
class ServedTeacher:
    """The session's engine. Its client, and its loop to run coroutines on."""

    context: Context
    client: Client
    runner: asyncio.Runner
    key_file: Path

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine that uses the client; it belongs to this loop."""
        return self.runner.run(work)

    @property
    def url(self) -> str:
        """Where it answers now; another port after a restart."""
        assert self.client.engine is not None  # the client's endpoint learns it at a question
        return self.client.engine.url

    @property
    def endpoints(self) -> dict[str, Any]:
        """Tables for embedded_config: teacher and, through same_as, judge are this engine."""
        return behind_endpoints("teacher", (self.url,), self.key_file)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedTeacher]:
    """A started vLLM with the embedded teacher, in a run folder of its own."""
    folder = tmp_path_factory.mktemp("served") / "run"
    key_file = folder.parent / "key"
    with _Run(folder, embedded_config()) as run, asyncio.Runner() as runner:
        serving = serve(run.context, "teacher", "generate")
        client = runner.run(serving.__aenter__())
        runner.run(client.ready())
        assert client.engine is not None
        key_file.write_text(client.engine.key)
        try:
            yield ServedTeacher(run.context, client, runner, key_file)
        finally:
            runner.run(serving.__aexit__(None, None, None))
