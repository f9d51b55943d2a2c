"""What serving a model takes of a GPU, computed from its config.json and weight headers.

Weights count as the engine holds them: parameters times the bytes of their type there. The keys and
values of a token (the KV cache) take, for grouped-query attention,

    2 x layers x KV heads x head size x bytes a number

and for multi-head latent attention (DeepSeek), which keeps one compressed vector a layer,

    layers x (kv_lora_rank + qk_rope_head_dim) x bytes a number
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import weights
from localism.config import Served

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}
# Beside weights and cache: CUDA context, the kernels' workspace, activations, CUDA graphs.
OVERHEAD_BYTES = 3 * 2**30


@dataclass(frozen=True)
class Needed:
    """Bytes that a model takes while it is served."""

    parameters: int
    """From the safetensors headers."""
    weights: int
    """All of them, in the engine's type."""
    a_token: int
    """Keys and values of one token; 0 where config.json does not say."""
    longest: int
    """Tokens of the longest conversation that is served."""

    @property
    def conversation(self) -> int:
        """Keys and values of the longest conversation."""
        return self.a_token * self.longest


def needed(folder: Path, section: Served) -> Needed:
    """What serving this folder with these settings takes."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    parameters = weights.parameter_count(folder)
    longest = section.max_model_len or text.get("max_position_embeddings") or 0
    return Needed(
        parameters,
        stored_bytes(folder, section, config, parameters),
        cache_bytes(text, number_bytes(section, config)),
        longest,
    )


def number_bytes(section: Served, config: dict[str, Any]) -> int:
    """Bytes of a number of the cache, which is kept in the type of the weights."""
    dtype = section.dtype
    if dtype == "auto":
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    # vLLM serves float32 checkpoints as float16 or bfloat16 unless float32 is asked for.
    return BYTES[dtype] if section.dtype == "float32" else min(2, BYTES.get(dtype, 2))


def stored_bytes(folder: Path, section: Served, config: dict[str, Any], parameters: int) -> int:
    """Bytes of the weights in the engine; quantised ones stay as they lie on the disk."""
    if config.get("quantization_config"):
        return weights.total_bytes(folder)
    return parameters * number_bytes(section, config)


def cache_bytes(text: dict[str, Any], each: int) -> int:
    """Bytes of one token's keys and values; 0 where the configuration does not say."""
    layers = text.get("num_hidden_layers", 0)
    if "kv_lora_rank" in text:
        return int(layers * (text["kv_lora_rank"] + text.get("qk_rope_head_dim", 0)) * each)
    heads = text.get("num_attention_heads", 0)
    if not heads:
        return 0
    size = text.get("head_dim") or text.get("hidden_size", 0) // heads
    return int(2 * layers * (text.get("num_key_value_heads") or heads) * size * each)
