"""Two real vLLM servers behind one role, of which one is killed in the middle of generate."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from engines import NewContext, ServedTeacher, behind_endpoints, embedded_config
from test_generate import plan
from test_serving import server_of

from localism import reader, status
from localism.context import Context
from localism.records import LOCK, STAGES
from localism.serving.engine import Engine
from localism.stages import generate

pytestmark = pytest.mark.component

MIXES = 80
RELAY = """
import asyncio, sys
here, there = map(int, sys.argv[1:])

async def carry(source, sink):
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()

async def relay(reader, writer):
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", there)
    await asyncio.gather(carry(reader, other_writer), carry(other_reader, writer))

async def main():
    async with await asyncio.start_server(relay, "127.0.0.1", here) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@contextmanager
def as_a_run(context: Context) -> Iterator[None]:
    """What a process that works on a run holds, by which others know it and ask it."""
    with (context.folder / LOCK).open("w") as lock, reader.answering(context.store, context.folder):
        fcntl.flock(lock, fcntl.LOCK_EX)
        context.store.event("stage_started", "generate")
        yield


@contextmanager
def second_server(context: Context, key: str) -> Iterator[Engine]:
    """Another vLLM with the same model and key."""
    with asyncio.Runner() as runner:
        engine = Engine(context, "teacher", "generate")
        engine.key = key
        runner.run(engine.start())
        try:
            yield engine
        finally:
            runner.run(engine.stop())


class Meddler(threading.Thread):
    """Kills the second server once some mixes are written; then a server is back at its port.

    That one is a relay to the first, which saves the start of a third: to the client it is a vLLM
    that answers at the old address.
    """

    def __init__(self, context: Context, first: str, second: Engine) -> None:
        super().__init__(daemon=True)
        self._context, self._second = context, second
        self._ports = [url.rpartition(":")[2].removesuffix("/v1") for url in (second.url, first)]
        self.said: list[str] = []
        self.relay: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        self.until("SELECT count(*) >= 5 FROM candidate")
        self.look()
        os.kill(server_of(self._second.pid), signal.SIGKILL)
        self.until("SELECT count(*) > 0 FROM event WHERE kind = 'endpoint_away'")
        self.look()
        self.relay = subprocess.Popen([sys.executable, "-c", RELAY, *self._ports])
        self.until("SELECT count(*) > 0 FROM event WHERE kind = 'endpoint_back'")
        self.look()

    def until(self, claim: str) -> None:
        deadline = time.monotonic() + 120
        while not self._context.store.value(claim) and time.monotonic() < deadline:
            time.sleep(0.02)

    def look(self) -> None:
        """What `localism status` says of the second server now."""
        lines = status.render(status.facts(self._context.folder, STAGES)).splitlines()
        self.said += [line for line in lines if self._second.url in line]


def test_a_server_killed_in_the_middle_of_generate_costs_no_row_and_is_taken_back(
    teacher: ServedTeacher, new_context: NewContext
) -> None:
    key = teacher.key_file.read_text()
    with second_server(new_context(name="second"), key) as second:
        urls = (teacher.url, second.url)
        tables = behind_endpoints("teacher", urls, teacher.key_file)
        few = {"requests_in_flight": 6}  # so that it lasts until the server is back
        context = new_context(embedded_config(**tables, generate=few))
        plan(context.store, MIXES)
        meddler = Meddler(context, teacher.url, second)
        with as_a_run(context):
            meddler.start()
            try:
                generate.run(context)
            finally:
                meddler.join(60)
                if meddler.relay:
                    meddler.relay.kill()
                    meddler.relay.wait()

    store = context.store
    (books,) = store.query("SELECT * FROM books WHERE stage = 'generate'")
    assert books["planned"] == MIXES and not books["pending"] and not books["failed"]
    assert books["accepted"] + books["rejected"] == MIXES
    assert store.value("SELECT count(*) - count(DISTINCT turn_id) FROM turn") == 0
    # Three turns a mix and none more: what was lost is in the ledger once.
    assert store.value("SELECT count(*) FROM turn WHERE stage = 'generate'") == 3 * MIXES
    changes = store.query(
        "SELECT kind, detail->>'url' AS url, detail->>'problem' AS problem FROM event "
        "WHERE kind IN ('endpoint_away', 'endpoint_back') ORDER BY happened_at"
    )
    assert [row["kind"] for row in changes] == ["endpoint_away", "endpoint_back"]
    assert {row["url"] for row in changes} == {second.url}
    assert changes[0]["problem"]
    assert [line.split(second.url)[1].split()[0] for line in meddler.said] == [
        "works", "away", "works",
    ]  # fmt: skip
    assert changes[0]["problem"] in meddler.said[1]
