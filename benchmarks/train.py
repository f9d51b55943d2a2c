"""How much of a bare torch loop's speed does training keep?  Target: at least 0.9 of its tokens/s.

    python benchmarks/train.py                              # the embedded student, and a deeper one
    python benchmarks/train.py --model FOLDER --batch 8     # another; on a GPU where there is one

Both sides take the same batches, made by the trainer's own loader, through the same model class
with the same optimizer, schedule and gradient clipping: stage train's trainer with its log of every
step, against a loop of a few lines. They take turns within one process, so that a loaded machine
slows both; the ratio is the median of the turns', by wall time on a GPU and CPU seconds on a CPU,
which are the same thing on a machine of its own. A third side is the trainer with the model's own
output layer in place of TRL's, which saves memory by computing logits twice: what remains of its
distance to the loop is the trainer's. A table for people, then one line of JSON, also
written to benchmarks/results/train.json.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from localism.gpus import find_gpus
from localism.paths import embedded
from localism.stages.train_plan import shape_of
from localism.training.job import Job

RESULT = Path(__file__).parent / "results" / "train.json"
CLIP = 1.0  # transformers' default


def main() -> None:
    """Both sides in turns; table, JSON, results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = [asked.model] if asked.model else ["embedded:student", deeper(Path(folder))]
        found = [measure(Path(folder), asked, model) for model in models]
    for one in found:
        print(f"{one['model']}, {one['parameters'] / 1e6:.1f}M parameters")
        for side in ("trainer", "whole_logits", "loop"):
            speed = one[side]
            print(
                f"  {side:13} {speed['median']:10,.0f} tokens/s   ratio {speed['ratio']:.3f}"
                f"   {speed['ratios']}"
            )
    outcome = {
        "benchmark": "train",
        "date": date.today().isoformat(),
        **{name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")},
        "models": found,
    }
    line = json.dumps(outcome)
    print(line)
    RESULT.write_text(line + "\n")


def deeper(folder: Path) -> str:
    """A model with random weights whose vocabulary is a small share of it, as in large models."""
    from transformers import AutoConfig, AutoModelForCausalLM

    base, target = embedded("embedded:student"), folder / "deeper-student"
    shutil.copytree(base, target)
    config = AutoConfig.from_pretrained(base)
    config.update({"num_hidden_layers": 8, "hidden_size": 384, "intermediate_size": 1024})
    config.update({"head_dim": 64})
    AutoModelForCausalLM.from_config(config).save_pretrained(target)
    return str(target)


def measure(folder: Path, asked: argparse.Namespace, model: str) -> dict[str, Any]:
    """Tokens a second of both sides, turn by turn."""
    from localism.training.trainer import build

    job = make_job(folder, asked, model)
    builts = {"trainer": build(job), "whole_logits": build(job)}
    trainer = builts["trainer"].trainer
    use_own_output_layer(builts["whole_logits"].trainer)
    for built in builts.values():
        built.trainer.args.save_strategy = "no"
    batches = list(trainer.get_train_dataloader())[: asked.steps]
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    loop = Loop(trainer, batches)
    speeds: dict[str, list[float]] = {"trainer": [], "whole_logits": [], "loop": []}
    for turn in range(asked.repeat + 1):
        seconds = {side: train_once(job, built) for side, built in builts.items()}
        seconds["loop"] = loop.run()
        if turn:  # the first warms all up
            for side, value in seconds.items():
                speeds[side].append(tokens / value)
    return {
        "model": Path(model).name,
        "machine": machine(trainer.args.device),
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "attention": builts["trainer"].attention,
        "batch": asked.batch,
        "steps": len(batches),
        "tokens": tokens,
        "seconds": "wall" if trainer.args.device.type == "cuda" else "CPU",
        **{side: spread(found, speeds["loop"]) for side, found in speeds.items()},
    }


def use_own_output_layer(trainer: Any) -> None:
    """Have the model compute the loss by itself, from the logits of all tokens at once."""

    def compute_loss(
        model: Any, inputs: Any, _: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        trainer._total_train_tokens += int(inputs["attention_mask"].sum())
        trainer._metrics["train"]["num_tokens"] = [trainer._total_train_tokens]
        return model(**inputs, use_cache=False, num_items_in_batch=num_items_in_batch).loss

    trainer.compute_loss = compute_loss


def make_job(folder: Path, asked: argparse.Namespace, model: str) -> Job:
    """A job over the embedded seed questions, long enough for all steps."""
    examples = [
        json.loads(line) for line in embedded("embedded:seeds.jsonl").read_text().splitlines()
    ]
    with (folder / "train.jsonl").open("w") as file:
        for number in range(asked.batch * asked.steps):
            example = examples[number % len(examples)]
            row = {
                "prompt": [{"role": "user", "content": example["instruction"]}],
                "completion": [{"role": "assistant", "content": example["response"]}],
            }
            file.write(json.dumps(row) + "\n")
    (folder / "dev.jsonl").touch()
    base = embedded(model)
    gpus = find_gpus(os.environ)
    return Job(
        identity="",
        model=str(base),
        train_file=str(folder / "train.jsonl"),
        dev_file=str(folder / "dev.jsonl"),
        checkpoints=str(folder / "checkpoints"),
        log=str(folder / "log.jsonl"),
        chat_template=None,
        resume_from=None,
        tensorboard=str(folder / "tensorboard"),
        parent=os.getppid(),
        device="cuda" if gpus.number else "cpu",
        machines=1,
        silence_seconds=180,
        processes=1,
        sharded=False,
        threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
        method="full",
        lora_rank=16,
        lora_alpha=32.0,
        lora_targets=(),
        packing=False,
        weights_dtype=shape_of(base).dtype,
        epochs=1,
        learning_rate=1e-5,
        micro_batch=asked.batch,
        accumulation=1,
        warmup=0.03,
        weight_decay=0.0,
        max_length=512,
        gradient_checkpointing=False,
        seed=0,
        trust_remote_code=False,
    )


def train_once(job: Job, built: Any) -> float:
    """Seconds of the trainer between the beginning of its first step and the end of its last."""
    from transformers import PrinterCallback, TrainerCallback

    from localism.training.recorder import Recorder

    Path(job.log).unlink(missing_ok=True)
    trainer, recorder = built.trainer, Recorder(job, built)
    clock = clock_of(trainer)
    moments: list[float] = []

    class Hooks(TrainerCallback):
        """The recorder as in stage train, and a watch."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recorder.begin(state)

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            moments.append(clock())

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any
        ) -> None:
            if "loss" in logs:
                recorder.step(state, logs)
                moments.append(clock())

    hooks = Hooks()
    trainer.add_callback(hooks)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.remove_callback(hooks)
    return moments[-1] - moments[0]


class Loop:
    """The same steps without a trainer: forward, backward, clip, AdamW, cosine schedule."""

    def __init__(self, trainer: Any, batches: list[Any]) -> None:
        from transformers import AutoModelForCausalLM

        self._device, self._bf16 = trainer.args.device, trainer.args.bf16
        self._batches, self._rate = batches, trainer.args.learning_rate
        self._clock = clock_of(trainer)
        model = AutoModelForCausalLM.from_pretrained(
            trainer.model.config._name_or_path,
            dtype=trainer.model.dtype,
            attn_implementation=trainer.model.config._attn_implementation,
        )
        self._model = model.to(self._device).train()

    def run(self) -> float:
        """Seconds for one pass over the batches."""
        import torch
        from transformers import get_cosine_schedule_with_warmup

        optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=self._rate, weight_decay=0.0, fused=True
        )
        steps = len(self._batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, int(0.03 * steps), steps)
        started = self._clock()
        for batch in self._batches:
            inputs = {
                name: value.to(self._device) if torch.is_tensor(value) else value
                for name, value in batch.items()
            }
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                loss = self._model(**inputs, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            loss.item()  # the trainer logs every step
        return self._clock() - started


def clock_of(trainer: Any) -> Callable[[], float]:
    """Seconds that pass on a GPU; on a CPU those that this process got, for others share it."""
    return time.perf_counter if trainer.args.device.type == "cuda" else time.process_time


def spread(values: list[float], loop: list[float]) -> dict[str, Any]:
    """Median and all values, whole; and the same as shares of the loop's, turn by turn."""
    ratios = [value / bare for value, bare in zip(values, loop, strict=True)]
    return {
        "median": round(statistics.median(values)),
        "all": [round(value) for value in values],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def machine(device: Any) -> str:
    """The GPU's name, or how many cores."""
    if device.type == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return f"{os.cpu_count()} cores ({platform.machine()}), shared"


if __name__ == "__main__":
    main()
