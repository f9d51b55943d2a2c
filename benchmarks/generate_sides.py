"""The sides of benchmarks/generate.py: who holds the conversations of a pass, and what it took."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from generate_load import Load, Request

from localism.processes import session_processes
from localism.records import Sampling
from localism.serving.client import Client, Conversation
from localism.serving.load import QUEUED

HERE = Path(__file__).parent

Measured = dict[str, float]
Side = Callable[[list[list[Request]]], Awaitable[Measured]]


class Raw:
    """The process of generate_raw.py; ends with the block."""

    def __init__(self, model: Path, load: Load) -> None:
        words = [sys.executable, str(HERE / "generate_raw.py"), str(model), str(load.max_num_seqs)]
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # so that its processes can be told from others
        )

    def __enter__(self) -> "Raw":
        assert self._answer() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    async def hold(self, conversations: list[list[Request]]) -> Measured:
        """One pass."""
        assert self._process.stdin is not None
        cpu = session_cpu_seconds(self._process.pid)
        print(_as_json(conversations), file=self._process.stdin, flush=True)
        measured: Measured = await asyncio.to_thread(self._answer)
        return {**measured, "cpu_seconds": session_cpu_seconds(self._process.pid) - cpu}

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.exit(f"LLM.chat failed:\n{self._log.read()[-3000:]}")
        return json.loads(line)


async def hold_independently(client: Client, conversations: list[list[Request]]) -> None:
    """localism: every conversation goes on as soon as it has its reply."""

    async def hold(requests: list[Request]) -> None:
        chat = client.conversation()
        for request in requests:
            await _say(chat, request)

    await client.for_each(conversations, hold)


async def hold_in_step(client: Client, conversations: list[list[Request]]) -> None:
    """The barrier: the second turn begins when the last conversation has its first reply."""
    chats = [client.conversation() for _ in conversations]
    for requests in zip(*conversations, strict=True):
        both = zip(chats, requests, strict=True)
        await client.for_each(both, lambda pair: _say(*pair))


async def _say(chat: Conversation, request: Request) -> None:
    reply = await chat.say(
        request.prompt,
        template=request.template,
        sampling=Sampling(request.temperature, request.top_p, request.max_tokens),
        extra={"ignore_eos": True},
    )
    assert reply.completion_tokens == request.max_tokens and not reply.from_ledger


def distilabel(
    python: Path, client: Client, batch: int, conversations: list[list[Request]]
) -> Measured:
    """A run of generate_distilabel.py; its clock starts with its first request."""
    assert client.engine is not None
    with tempfile.TemporaryDirectory() as folder:
        asked = {
            "url": client.engine.url,
            "key": client.engine.key,
            "model": client.endpoints.model_name,
            "batch": batch,
            "folder": folder,
            "conversations": json.loads(_as_json(conversations)),
        }
        done = subprocess.run(
            [str(python), str(HERE / "generate_distilabel.py")],
            input=json.dumps(asked),
            env={
                "PATH": os.defpath,
                "HOME": folder,  # its cache goes there
                "HF_HUB_OFFLINE": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
                "DISTILABEL_LOG_LEVEL": "WARNING",
            },
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"distilabel failed:\n{done.stderr[-3000:]}")
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    return measured


def _as_json(conversations: list[list[Request]]) -> str:
    return json.dumps([[request._asdict() for request in turns] for turns in conversations])


def http_sides(client: Client, load: Load, python: Path | None) -> dict[str, Side]:
    """The sides that share the server."""

    def here(hold: Callable[[Client, list[list[Request]]], Awaitable[None]]) -> Side:
        async def side(conversations: list[list[Request]]) -> Measured:
            began, cpu = time.monotonic(), own_cpu_seconds()
            await hold(client, conversations)
            return {
                "seconds": time.monotonic() - began,
                "client_cpu_seconds": own_cpu_seconds() - cpu,
            }

        return _with_server(client, side)

    def elsewhere(python: Path, batch: int) -> Side:
        async def side(conversations: list[list[Request]]) -> Measured:
            return await asyncio.to_thread(distilabel, python, client, batch, conversations)

        return _with_server(client, side)

    sides = {"localism": here(hold_independently), "barrier": here(hold_in_step)}
    if python:
        # All steps of its pipeline work at once, so together they have in flight what localism has.
        batch = round(QUEUED * load.max_num_seqs / len(load.turns))
        sides[f"distilabel, batches of {batch}"] = elsewhere(python, batch)
        sides["distilabel, one batch"] = elsewhere(python, load.conversations)
    return sides


def _with_server(client: Client, side: Side) -> Side:
    """The side, with the server's CPU seconds and engine steps added to what it measured."""
    engine = client.engine
    assert engine is not None

    async def both(conversations: list[list[Request]]) -> Measured:
        cpu, steps = session_cpu_seconds(engine.pid), engine_steps(engine.url)
        measured = await side(conversations)
        return {
            **measured,
            "cpu_seconds": measured["client_cpu_seconds"] + session_cpu_seconds(engine.pid) - cpu,
            "engine_steps": engine_steps(engine.url) - steps,
        }

    return both


def own_cpu_seconds() -> float:
    """CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def session_cpu_seconds(session: int) -> float:
    """CPU time of a session's living processes."""
    ticks = 0
    for pid in session_processes(session):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def engine_steps(url: str) -> float:
    """Steps that the engine made so far, from the server's own metrics."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url.removesuffix("/v1") + "/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    found = [line for line in lines if line.startswith("vllm:iteration_tokens_total_count")]
    assert found, "the server no longer counts its steps"
    return sum(float(line.rpartition(" ")[2]) for line in found)
