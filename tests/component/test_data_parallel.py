"""Two copies of a model behind one server, on the CPU: both answer, both get new weights."""

import asyncio
import json
import os
import shutil
import signal
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from engines import NewContext, behind_endpoints, embedded_config
from test_generate import plan

from localism.paths import embedded
from localism.processes import session_processes
from localism.records import Sampling
from localism.run import check_books
from localism.serving.client import Client
from localism.serving.server import serve
from localism.stages import generate

pytestmark = pytest.mark.component

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)
# The student's engine is the one that swaps weights; the embedded teacher's are what can generate.
TWO = {
    "path": "embedded:teacher", "dtype": "float32", "max_num_seqs": 64, "data_parallel": 2,
    "max_model_len": 1024,
}  # fmt: skip


def answered(client: Client) -> Counter[str]:
    """Requests that each copy has answered, by vLLM's own figures."""
    assert client.engine is not None
    url = client.engine.url.removesuffix("/v1") + "/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {client.engine.key}"})
    with urllib.request.urlopen(request, timeout=30) as page:
        lines = page.read().decode().splitlines()
    found: Counter[str] = Counter()
    for line in lines:
        if line.startswith("vllm:request_success_total{"):
            copy = line.partition('engine="')[2].partition('"')[0]
            found[copy] += int(float(line.rpartition(" ")[2]))
    return found


def other_weights(folder: Path) -> Path:
    """The embedded teacher with noise on every tensor."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(embedded("embedded:teacher"), folder)
    tensors = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(0)
    noisy = {
        name: (one.float() * (1 + 0.3 * torch.randn(one.shape, generator=draw))).to(one.dtype)
        for name, one in tensors.items()
    }
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


async def same_question(client: Client, times: int) -> Counter[str]:
    """Replies to one greedy question asked so often at once, which both copies then answer."""
    texts: Counter[str] = Counter()

    async def ask(sample: int) -> None:
        reply = await client.conversation(sample).say("Plan a week.", template="t", sampling=GREEDY)
        texts[reply.text] += 1

    await client.for_each(range(times), ask)
    return texts


def engine_cores(session: int) -> list[int]:
    """Process ids of the copies, whose names vLLM sets."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in session_processes(session)}
    return sorted(pid for pid, name in names.items() if "EngineCore" in name)


def test_both_copies_answer_and_take_new_weights_and_nothing_is_left(
    new_context: NewContext, tmp_path: Path
) -> None:
    context = new_context(embedded_config(student=TWO))
    other, key_file = other_weights(tmp_path / "other"), tmp_path / "key"
    with asyncio.Runner() as runner:
        serving = serve(context, "student", "pick")
        client = runner.run(serving.__aenter__())
        assert client.engine is not None
        try:
            runner.run(client.ready())
            session, url = client.engine.pid, client.engine.url
            assert client.in_flight == 2 * 1.25 * 64, "work for both"

            before = runner.run(same_question(client, 24))
            first = answered(client)
            runner.run(client.load_weights(other))
            after = runner.run(same_question(client, 24))
            second = answered(client)
            assert len(before) == len(after) == 1 and before != after
            assert sorted(first) == ["0", "1"] and min(first.values()) >= 6
            assert min((second - first).values()) >= 6
            runner.run(client.load_weights(embedded("embedded:teacher")))

            key_file.write_text(client.engine.key)
            generated = new_context(
                embedded_config(**behind_endpoints("teacher", (url,), key_file)), "generated"
            )
            plan(generated.store, 20)
            generate.run(generated)
            written = generated.store.query(
                "SELECT status, count(*) AS n FROM candidate GROUP BY 1"
            )
            assert written == [{"status": "written", "n": 20}]
            check_books(generated.store, ["generate"])
            assert generated.store.value("SELECT count(*) FROM turn") == 60
            assert min((answered(client) - second).values()) >= 15

            cores = engine_cores(session)
            assert len(cores) == 2
            os.kill(cores[1], signal.SIGKILL)
            deadline = time.monotonic() + 60
            while session_processes(session) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert session_processes(session) == [], "one copy's death ends the server whole"
        finally:
            runner.run(serving.__aexit__(None, None, None))
    events = context.store.query("SELECT kind, detail FROM event ORDER BY happened_at")
    assert [event["kind"] for event in events] == ["engine_started", "engine_stopped"]
    assert "data parallel 2" in events[0]["detail"]
    assert json.loads(events[1]["detail"])["left"] == []
