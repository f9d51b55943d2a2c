"""What `localism plan` says of 10k, 1M and 100M examples on paper: hours, GPU hours, tokens, disk.

    python benchmarks/scale_plans.py

Nothing is run. A teacher of Llama 3.3 70B's shape and a student of Llama 3.1 8B's (their
config.json and the headers of empty weights), pack paper, gates as for the paper's protocol, one
machine of eight H100s. Seconds are assumed (planning/hardware.py), good to a factor of three
or four; calls and tokens are counted. A table for people, then a line of JSON, also in
benchmarks/results/scale_plans.json.
"""

import json
import struct
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from localism.gpus import Gpus
from localism.models_toml import validate
from localism.planning import predict
from localism.planning.disk import needed
from localism.planning.hardware import Machine
from localism.planning.work import units

RESULT = Path(__file__).parent / "results" / "scale_plans.json"
EXAMPLES = (10_000, 1_000_000, 100_000_000)
H100S = Machine(Gpus(8, 80 * 2**30), 96)
SHAPES = {
    "teacher": {"hidden": 8192, "layers": 80, "inner": 28_672, "heads": 64},
    "student": {"hidden": 4096, "layers": 32, "inner": 14_336, "heads": 32},
}
KV_HEADS, HEAD, VOCABULARY = 8, 128, 128_256


def model(folder: Path, hidden: int, layers: int, inner: int, heads: int) -> Path:
    """A folder with the configuration and the headers of a model, and no weights: a sparse file."""
    folder.mkdir()
    config = {
        "model_type": "llama", "hidden_size": hidden, "num_hidden_layers": layers,
        "intermediate_size": inner, "num_attention_heads": heads, "head_dim": HEAD,
        "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY, "dtype": "bfloat16",
        "max_position_embeddings": 131_072, "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text('{"chat_template": "{{ messages }}"}')
    q, kv = heads * HEAD, KV_HEADS * HEAD
    block = {
        "q_proj": [q, hidden], "o_proj": [hidden, q], "k_proj": [kv, hidden],
        "v_proj": [kv, hidden], "gate_proj": [inner, hidden], "up_proj": [inner, hidden],
        "down_proj": [hidden, inner],
    }  # fmt: skip
    shapes = {f"{name}.weight": [VOCABULARY, hidden] for name in ("embed_tokens", "lm_head")}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": block[name] for name in block}
    header, end = {}, 0
    for name, (rows, columns) in shapes.items():
        begin, end = end, end + 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def plan(teacher: Path, student: Path, examples: int) -> dict[str, Any]:
    """Rows and totals of a run with so many training examples."""
    served = {"max_model_len": 16_384, "max_num_seqs": 256}
    config = validate(
        {
            "teacher": {"path": str(teacher), **served},
            "judge": {"same_as": "teacher"},
            "student": {"path": str(student), "max_model_len": 4096, "max_tokens": 2048},
            "prompts": {"pack": "paper"},
            "extract": {"topics": 150, "skills_per_topic": 8},
            "mix": {"k": 2, "train": examples, "dev": 100, "test": 200},
            "curate": {"gates": ["parsed", "complete", "length", "skills", "shirker", "duplicate"],
                       "skills": "judge"},
            "train": {"keep": "best"},
        },
        "models.toml",
    )  # fmt: skip
    rows = list(predict.rows(config, H100S, None, None))
    calls = sum(row.calls for row in rows)
    return {
        "epochs": units(config)["train"] // examples,
        "stages": {
            row.stage: {"hours": row.hours, "gpu_hours": row.gpu_hours, "calls": row.calls,
                        "prompt_tokens": row.prompt_tokens, "output_tokens": row.output_tokens}
            for row in rows
        },
        "hours": sum(row.hours or 0 for row in rows),
        "gpu_hours": sum(row.gpu_hours or 0 for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "calls": calls,
        "disk_bytes": needed(config, H100S.gpus, calls).most,
    }  # fmt: skip


def main() -> None:
    """Three plans, a table, a line."""
    with tempfile.TemporaryDirectory() as scratch:
        teacher, student = (model(Path(scratch) / name, **shape) for name, shape in SHAPES.items())
        plans = {examples: plan(teacher, student, examples) for examples in EXAMPLES}
    print(f"{'hours on 8 H100s':<18}" + "".join(f"{examples:>14,}" for examples in EXAMPLES))
    for stage in plans[EXAMPLES[0]]["stages"]:
        hours = [plans[examples]["stages"][stage]["hours"] for examples in EXAMPLES]
        print(f"{stage:<18}" + "".join(f"{one:>14,.1f}" for one in hours))
    for key in ("epochs", "hours", "gpu_hours", "output_tokens", "calls", "disk_bytes"):
        print(f"{key:<18}" + "".join(f"{plans[examples][key]:>14,.4g}" for examples in EXAMPLES))
    result = {
        "benchmark": "scale_plans", "date": str(date.today()), "machine": "8 H100 80 GB, on paper",
        "plans": plans,
    }  # fmt: skip
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
