"""vLLM's offline LLM.chat, turn by turn: one side of benchmarks/generate.py, which starts it.

    python benchmarks/generate_raw.py MODEL_FOLDER MAX_NUM_SEQS

Reads a line of JSON for each pass, a list of conversations, and answers with one: seconds. Waits
without work between passes, so that sides can take turns.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from generate_load import MAX_MODEL_LEN, has_weights

from localism.serving.engine import CACHE_GIB, ONE_THREAD_PARAMETERS, engine_kind
from localism.weights import parameter_count

# Two engines share a GPU, and each gets the same.
GPU_MEMORY = 0.45


def start(model: Path, max_num_seqs: int) -> Any:
    """The engine, with what localism gives to its server."""
    options: dict[str, Any] = {}
    if engine_kind("teacher") == "cpu":
        is_tiny = parameter_count(model) < ONE_THREAD_PARAMETERS
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = CACHE_GIB[is_tiny]
        if is_tiny:
            os.environ["OMP_NUM_THREADS"] = "1"
        options = {"enforce_eager": True, "block_size": 32}
    else:
        options = {"gpu_memory_utilization": GPU_MEMORY}
    if not has_weights(model):
        options["load_format"] = "dummy"
    from vllm import LLM

    return LLM(str(model), max_model_len=MAX_MODEL_LEN, max_num_seqs=max_num_seqs, **options)


def hold(engine: Any, conversations: list[list[dict[str, Any]]]) -> None:
    """All conversations: every turn is one call of LLM.chat."""
    from vllm import SamplingParams

    chats: list[list[dict[str, str]]] = [[] for _ in conversations]
    for requests in zip(*conversations, strict=True):
        for chat, request in zip(chats, requests, strict=True):
            chat.append({"role": "user", "content": request["prompt"]})
        sampling = [
            SamplingParams(
                temperature=request["temperature"],
                top_p=request["top_p"],
                ignore_eos=True,
                max_tokens=request["max_tokens"],
            )
            for request in requests
        ]
        replies = engine.chat(chats, sampling, use_tqdm=False)
        for chat, request, reply in zip(chats, requests, replies, strict=True):
            assert len(reply.outputs[0].token_ids) == request["max_tokens"]
            chat.append({"role": "assistant", "content": reply.outputs[0].text})


def main() -> None:
    """Answer passes until the input ends."""
    # vLLM prints to standard output too; the answers keep it for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    engine = start(Path(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        conversations = json.loads(line)
        began = time.monotonic()
        hold(engine, conversations)
        print(json.dumps({"seconds": time.monotonic() - began}), file=answers)


if __name__ == "__main__":
    main()
