"""What training costs on one GPU: tokens/s, MFU, memory against our estimate; and two swaps.

    python benchmarks/gpu_train.py                      # 1.2B random parameters, on one GPU
    python benchmarks/gpu_train.py --model FOLDER --length 4096
    python benchmarks/gpu_train.py --model embedded:student --length 128 --batch 4 --steps 5

The model has the shape of a 1B Llama in bfloat16 and weights drawn at random, for speed and memory
depend on neither. Each training is stage train's own process with the micro-batch that stage train
would choose, with and without gradient checkpointing; speed is that of the steps after the third.
MFU counts 6 floating-point operations a parameter and token, plus attention's, over the GPU's peak
in dense bf16. Then the trained weights are put into a running model and the first ones back again:
its answers must be those of a model loaded afresh. Table, one line of JSON, results/gpu_train.json.
"""

import argparse
import gc
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from localism import weights
from localism.gpus import Gpus, find_gpus
from localism.models_toml import validate
from localism.offline import child_environment
from localism.paths import embedded
from localism.stages.train_plan import (
    Shape,
    accumulation_steps,
    derive_micro_batch,
    passing_bytes,
    shape_of,
    state_bytes,
    token_bytes,
)
from localism.training.job import Job, log_lines

RESULT = Path(__file__).parent / "results" / "gpu_train.json"
ONE_BILLION = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
# Dense bf16, in operations a second, by a part of the GPU's name (the makers' data sheets).
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}
WARM_UP = 3
NEW_TOKENS = 32


def main() -> None:
    """Trainings, swaps; table, JSON, results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--length", type=int, default=2048, help="tokens of every example")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--to", type=Path, default=RESULT)
    asked = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        base = embedded(asked.model) if asked.model else one_billion(Path(folder) / "one-billion")
        trainings = [train(Path(folder), base, asked, on) for on in (True, False)]
        swaps = swap_twice(base, Path(trainings[0].pop("checkpoint")))
    trainings[1].pop("checkpoint")
    found = {
        "benchmark": "gpu_train",
        "date": date.today().isoformat(),
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
        "machine": gpu_name() or f"{os.cpu_count()} cores, no GPU",
        "parameters": weights_of(trainings),
        "length": asked.length,
        "batch": asked.batch,
        "trainings": trainings,
        "swaps": swaps,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    report(found)
    asked.to.write_text(json.dumps(found) + "\n")


def weights_of(trainings: list[dict[str, Any]]) -> int:
    """Parameters of the model, which both trainings counted."""
    return int(trainings[0]["parameters"])


def report(found: dict[str, Any]) -> None:
    """A table, then the JSON line."""
    print(f"{found['machine']}, {found['parameters'] / 1e9:.2f}B parameters")
    for one in found["trainings"]:
        mfu = "" if one["mfu"] is None else f"   MFU {one['mfu']:.2f}"
        print(
            f"  checkpointing {one['checkpointing']!s:5}  micro-batch {one['micro_batch']:3}"
            f"  {one['tokens_per_second']:10,.0f} tokens/s{mfu}"
            f"  {one['memory_gb']:6.1f} GB, estimated {one['estimated_gb']:.1f}  {one['attention']}"
        )
    swaps = found["swaps"]
    print(f"  swaps {swaps['seconds']} s, a fresh load {swaps['load_seconds']} s, same answers")
    print(json.dumps(found))


def one_billion(folder: Path) -> Path:
    """A model of that size in bfloat16, with the embedded student's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(embedded("embedded:student"), folder)
    config = AutoConfig.from_pretrained(folder)
    config.update(ONE_BILLION)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return folder


# ---- training ------------------------------------------------------------------------------


def train(
    folder: Path, base: Path, asked: argparse.Namespace, checkpointing: bool
) -> dict[str, Any]:
    """One epoch in a process of its own; what its log says."""
    work = folder / f"checkpointing-{checkpointing}"
    work.mkdir()
    gpus, shape = find_gpus(os.environ), shape_of(base)
    gpus = Gpus(min(1, gpus.number), gpus.memory)
    job, fixed = job_of(work, base, asked, checkpointing, gpus, shape)
    write_examples(Path(job.train_file), base, asked.batch * asked.steps, asked.length)
    write_examples(Path(job.dev_file), base, 2, asked.length)
    job.write(work / "job.json")
    environment = child_environment(work) | {"OMP_NUM_THREADS": str(job.threads)}
    if gpus.number:
        environment["CUDA_VISIBLE_DEVICES"] = visible()
    command = [sys.executable, "-m", "localism.training.sft", str(work / "job.json")]
    subprocess.run(command, env=environment, check=True)
    lines = log_lines(Path(job.log))
    speed = steady_speed(lines)
    each = asked.length * token_bytes(shape, checkpointing, 1)
    return {
        "checkpointing": checkpointing,
        "parameters": weights.parameter_count(base),
        "attention": lines[0]["attention"],
        "micro_batch": job.micro_batch,
        "tokens_per_second": round(speed),
        "mfu": mfu(speed, base, shape, asked.length),
        "memory_gb": round(max(line["memory_gb"] for line in lines[1:]), 2),
        "estimated_gb": round((fixed + job.micro_batch * each) / 1e9, 2),
        "loss": [lines[1]["loss"], lines[-1]["loss"]],
        "checkpoint": str(Path(job.checkpoints) / "epoch-01"),
    }


def job_of(
    work: Path,
    base: Path,
    asked: argparse.Namespace,
    checkpointing: bool,
    gpus: Gpus,
    shape: Shape,
) -> tuple[Job, int]:
    """The job, and what our estimate holds for taken whatever the batch, in bytes."""
    section = {"batch": asked.batch, "max_length": asked.length}
    section["gradient_checkpointing"] = checkpointing
    roles = {"teacher": {"path": "embedded:teacher"}, "judge": {"same_as": "teacher"}}
    config = validate({**roles, "student": {"path": str(base)}, "train": section}, "benchmark")
    micro_batch, _ = derive_micro_batch(config, base, shape, gpus)
    parameters = weights.parameter_count(base)
    fixed = state_bytes("full", parameters, 1, shape) + passing_bytes("full", parameters, 1, shape)
    return _job(work, base, asked, gpus, shape, micro_batch, checkpointing), fixed


def _job(
    work: Path,
    base: Path,
    asked: argparse.Namespace,
    gpus: Gpus,
    shape: Shape,
    micro_batch: int,
    checkpointing: bool,
) -> Job:
    from train import make_job

    plain = argparse.Namespace(batch=micro_batch, steps=1)
    return replace(
        make_job(work, plain, str(base)),
        device="cuda" if gpus.number else "cpu",
        accumulation=accumulation_steps(asked.batch, 1, micro_batch),
        max_length=asked.length,
        gradient_checkpointing=checkpointing,
        weights_dtype=shape.dtype,
        learning_rate=3e-4,  # so that a few steps change answers, also in bfloat16
        parent=os.getpid(),
    )


def visible() -> str:
    """The first GPU that this process may use."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def write_examples(path: Path, base: Path, count: int, length: int) -> None:
    """Examples of about `length` tokens, and not fewer: the trainer cuts them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    seeds = [json.loads(line) for line in embedded("embedded:seeds.jsonl").read_text().splitlines()]
    responses = " ".join(seed["response"] for seed in seeds)
    while len(tokenizer(responses)["input_ids"]) < 2 * length:
        responses += " " + responses
    words = responses.split()
    with path.open("w") as file:
        for number in range(count):
            at = 7 * number % len(words)
            text = " ".join([*words[at:], *words[:at]])[: 12 * length]
            row = {
                "prompt": [{"role": "user", "content": seeds[number % len(seeds)]["instruction"]}],
                "completion": [{"role": "assistant", "content": text}],
            }
            file.write(json.dumps(row) + "\n")


def steady_speed(lines: list[dict[str, Any]]) -> float:
    """Tokens a second of the steps after the warm-up; the log's own speed is since the start."""
    steps = [line for line in lines if line["step"]]
    seconds = [line["tokens"] / line["tokens_per_second"] for line in steps]
    first = min(WARM_UP, len(steps) - 2)
    return float((steps[-1]["tokens"] - steps[first]["tokens"]) / (seconds[-1] - seconds[first]))


def mfu(speed: float, base: Path, shape: Shape, length: int) -> float | None:
    """Share of the GPU's peak; attention is counted as causal, half of all pairs."""
    name = gpu_name()
    peak = next((value for part, value in PEAKS.items() if part in name), None)
    if peak is None:
        return None
    each = 6 * weights.parameter_count(base) + 6 * shape.layers * shape.hidden * length
    return round(speed * each / peak, 3)


def gpu_name() -> str:
    """Of the GPU that this process uses; empty without one."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


# ---- swaps ---------------------------------------------------------------------------------


def swap_twice(base: Path, checkpoint: Path) -> dict[str, Any]:
    """Trained weights into a running model, and the first ones back; RuntimeError if it differs."""
    fresh = {folder: answers_of_fresh(folder) for folder in (base, checkpoint)}
    model, _ = load(base)
    seconds = []
    for folder in (checkpoint, base):
        started = time.monotonic()
        put_in(model, folder)
        seconds.append(round(time.monotonic() - started, 2))
        if answers(model, base) != fresh[folder][0]:
            raise RuntimeError(f"swapped to {folder.name}, the model answers otherwise")
    different = sum(
        one != other for one, other in zip(fresh[base][0], fresh[checkpoint][0], strict=True)
    )
    return {
        "seconds": seconds,
        "load_seconds": fresh[checkpoint][1],
        "answers": len(fresh[base][0]),
        "changed_by_training": different,
    }


def answers_of_fresh(folder: Path) -> tuple[list[str], float]:
    """Greedy answers of a model loaded for them alone, and the seconds of loading."""
    model, seconds = load(folder)
    found = answers(model, folder)
    del model
    gc.collect()
    return found, seconds


def load(folder: Path) -> tuple[Any, float]:
    """A model in the folder's own precision, on the GPU where there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    started = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return model, round(time.monotonic() - started, 2)


def put_in(model: Any, folder: Path) -> None:
    """Overwrite the model's weights with those of a folder, where they are."""
    import torch
    from safetensors import safe_open

    own = dict(model.named_parameters())
    with torch.no_grad():
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, "pt", device=str(model.device)) as file:
                for name in file.keys():
                    if name in own:  # a tied output layer is the embedding
                        own[name].copy_(file.get_tensor(name))
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def answers(model: Any, folder: Path) -> list[str]:
    """Greedy answers to four prompts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = embedded("embedded:seeds.jsonl").read_text().splitlines()[:4]
    found = []
    for line in lines:
        user = {"role": "user", "content": json.loads(line)["instruction"]}
        asked = tokenizer.apply_chat_template(
            [user], add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        said = model.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False)
        found.append(tokenizer.decode(said[0]))
    return found


if __name__ == "__main__":
    main()
