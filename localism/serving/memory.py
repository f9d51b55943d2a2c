"""What serving a model takes of GPUs, and by what its layers can be divided among them.

Computed from config.json and the headers of the weights.

Weights count as the engine holds them: parameters times the bytes of their type there. The keys and
values of a token (the KV cache) take, for grouped-query attention,

    2 x layers x KV heads x head size x bytes a number

and for multi-head latent attention (DeepSeek), which keeps one compressed vector a layer,

    layers x (kv_lora_rank + qk_rope_head_dim) x bytes a number
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localism import weights
from localism.config import Served

BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}
# Beside weights and cache: CUDA context, the kernels' workspace, activations, CUDA graphs.
OVERHEAD_BYTES = 3 * 2**30
# Keys of config.json that count a layer's experts.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class Needed:
    """Bytes that a model takes while it is served, and how it can be divided."""

    parameters: int
    """From the safetensors headers; all experts count."""
    weights: int
    """All of them, in the engine's type."""
    a_token: int
    """Keys and values of one token; 0 where config.json does not say."""
    longest: int
    """Tokens of the longest conversation that is served."""
    layers: "Layers"
    """Their sizes."""

    @property
    def conversation(self) -> int:
        """Keys and values of the longest conversation."""
        return self.a_token * self.longest


@dataclass(frozen=True)
class Layers:
    """What of a model is divided over GPUs; 0 for what config.json doesn't say."""

    heads: int = 0
    """Of the attention."""
    kv_heads: int = 0
    """Heads that keys and values are kept for; 1 where a layer keeps one compressed vector."""
    head_size: int = 0
    """Numbers that a head gives on."""
    widths: tuple[int, ...] = ()
    """Of the feed-forward layers that every token passes."""
    expert_width: int = 0
    """Of an expert's; 0 for a model without experts."""
    vocabulary: int = 0
    """Tokens."""
    group: int = 0
    """Inputs of a layer that share a scale, where weights are quantised; 0 where none do."""
    block: int = 0
    """Outputs that do."""


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
        layers(text, config.get("quantization_config") or text.get("quantization_config") or {}),
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


def layers(text: Mapping[str, Any], quantised: Mapping[str, Any]) -> Layers:
    """Sizes from the text model's part of config.json, and from quantization_config."""
    heads = text.get("num_attention_heads") or 0
    is_compressed = "kv_lora_rank" in text
    has_experts = any(text.get(key) for key in EXPERTS)
    inner = text.get("intermediate_size") or 0
    expert_width = (text.get("moe_intermediate_size") or inner) if has_experts else 0
    # Mixtral names its experts' width as others name the width of every layer; the check is alike.
    widths = (inner, text.get("shared_expert_intermediate_size") or 0)
    size = text.get("v_head_dim") if is_compressed else text.get("head_dim")
    group, block = scale_sizes(quantised)
    return Layers(
        heads=heads,
        kv_heads=1 if is_compressed else text.get("num_key_value_heads") or heads,
        head_size=size or (text.get("hidden_size", 0) // heads if heads else 0),
        widths=tuple(width for width in widths if width),
        expert_width=expert_width,
        vocabulary=text.get("vocab_size") or 0,
        group=group,
        block=block,
    )


def scale_sizes(quantised: Mapping[str, Any]) -> tuple[int, int]:
    """Inputs and outputs of a layer that share a scale: GPTQ, AWQ, FP8 blocks, compressed-tensors.

    (0, 0) where a whole row or tensor does, which can be divided anywhere.
    """
    blocks = quantised.get("weight_block_size")
    size = quantised.get("group_size") or quantised.get("q_group_size")
    for scheme in (quantised.get("config_groups") or {}).values():
        one = scheme.get("weights") or {}
        blocks, size = one.get("block_structure") or blocks, one.get("group_size") or size
    if isinstance(blocks, list) and len(blocks) == 2:
        return int(blocks[1]), int(blocks[0])
    return (size, 0) if isinstance(size, int) and size > 0 else (0, 0)
