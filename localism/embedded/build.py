"""Grammar -> tokenizer, teacher and student base, in this folder's form.

    python -m localism.embedded.build --out OUT --role student --phase plain --minutes 30
    python -m localism.embedded.build --out OUT --role teacher --phase tasks --minutes 20
    python -m localism.embedded.build --out OUT --role teacher --phase finish --minutes 20

A phase goes on from the role's checkpoint where there is one, and exports it at its end.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor, distributed
from transformers import PreTrainedTokenizerFast

from localism.embedded.conversation import Turn
from localism.embedded.model import (
    Shape,
    TinyLlama,
    export,
    grown,
    load_checkpoint,
    save_checkpoint,
)
from localism.embedded.tasks import draw_turns, plain_document
from localism.embedded.tokenizer import (
    ASSISTANT,
    END,
    PAD,
    USER,
    load_tokenizer,
    make_tokenizer,
)

POOL = 384
LOG_SECONDS = 30
SAVE_SECONDS = 120
LOCAL_STEPS = 8


@dataclass(frozen=True)
class Sizes:
    """Shape of a role's model, less the vocabulary."""

    layers: int
    width: int
    heads: int
    inner: int


SIZES = {"teacher": Sizes(6, 192, 6, 512), "student": Sizes(4, 192, 6, 512)}


@dataclass(frozen=True)
class Phase:
    """One stretch of training."""

    mix: str
    """A key of tasks.MIXES, or 'plain' for text without chat."""
    matrix_rate: float
    """Muon learning rate of the hidden matrices."""
    other_rate: float
    """AdamW learning rate of embeddings and norms."""
    letter_weight: float
    """Loss weight of a judge's letter against 1 for a written token."""
    decay_from: float
    """Share of the phase after which the rate falls towards zero; 1 keeps it."""


PHASES = {
    "plain": Phase("plain", 4e-3, 4e-3, 0.0, 0.4),
    "tasks": Phase("tasks", 3e-3, 3e-3, 5.0, 1.0),
    "finish": Phase("finish", 2e-3, 2e-3, 6.0, 0.2),
}


class Row(NamedTuple):
    """One sequence: inputs, targets shifted by one, and the loss weight of each target."""

    inputs: list[int]
    targets: list[int]
    weights: list[float]


# ---- data --------------------------------------------------------------------------------------


def chat_row(tokenizer: PreTrainedTokenizerFast, turns: list[Turn]) -> Row:
    """Tokens of a conversation; only replies with a weight are taught."""
    ids: list[int] = []
    weights: list[float] = []
    for turn in turns:
        asked = tokenizer.encode(USER + turn.user + ASSISTANT, add_special_tokens=False)
        reply = tokenizer.encode(turn.assistant + END, add_special_tokens=False)
        ids += asked + reply
        weights += [0.0] * len(asked) + [turn.weight] * len(reply)
        if len(reply) == 2:  # a judge's letter: the end token that follows is no choice
            weights[-1] = min(turn.weight, 0.2)
    return Row(ids[:-1], ids[1:], weights[1:])


def plain_row(tokenizer: PreTrainedTokenizerFast, rng: Random) -> Row:
    """Two documents after one another, so that an end token says nothing about what comes."""
    text = END.join(plain_document(rng) for _ in range(2)) + END
    ids = tokenizer.encode(END + text, add_special_tokens=False)
    return Row(ids[:-1], ids[1:], [1.0] * (len(ids) - 1))


def rows(tokenizer: PreTrainedTokenizerFast, phase: Phase, rng: Random) -> Iterator[Row]:
    """Endless training rows of a phase."""
    while True:
        if phase.mix == "plain":
            yield plain_row(tokenizer, rng)
        else:
            yield chat_row(tokenizer, draw_turns(rng, phase.mix, phase.letter_weight))


def batches(source: Iterator[Row], rng: Random, tokens: int) -> Iterator[list[Row]]:
    """Rows of like length together, about `tokens` padded tokens a batch, in random order."""
    while True:
        pool = sorted((next(source) for _ in range(POOL)), key=lambda row: len(row.inputs))
        ready: list[list[Row]] = [[]]
        for row in pool:
            if ready[-1] and (len(ready[-1]) + 1) * len(row.inputs) > tokens:
                ready.append([])
            ready[-1].append(row)
        rng.shuffle(ready)
        yield from ready


def padded(batch: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded tensors; padding has no weight and comes after all that looks back."""
    length = max(len(row.inputs) for row in batch)

    def fill(values: Callable[[Row], list], empty: float) -> Tensor:
        return torch.tensor([values(r) + [empty] * (length - len(values(r))) for r in batch])

    return (
        fill(lambda row: row.inputs, 0),
        fill(lambda row: row.targets, 0),
        fill(lambda row: row.weights, 0.0),
    )


# ---- training ----------------------------------------------------------------------------------


def optimizers(model: TinyLlama, phase: Phase) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices, AdamW for embeddings and norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and not name.startswith("embedding")]
    others = [p for name, p in named if p.dim() < 2 or name.startswith("embedding")]
    return [
        torch.optim.Muon(
            matrices,
            lr=phase.matrix_rate,
            weight_decay=0.02,
            ns_steps=4,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others, lr=phase.other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        ),
    ]


def rate_factor(done: float, step: int, decay_from: float) -> float:
    """Warm-up over 20 steps, then flat, then a cosine to 3% of the rate. `done` is 0 to 1."""
    warm = min(1.0, (step + 1) / 20)
    if done < decay_from:
        return warm
    left = (done - decay_from) / (1 - decay_from)
    return warm * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, left))))


@dataclass
class Progress:
    """What the log line says."""

    step: int = 0
    tokens: int = 0
    loss: float = math.nan

    def add(self, tokens: int, loss: float) -> None:
        self.step += 1
        self.tokens += tokens
        self.loss = loss if math.isnan(self.loss) else 0.97 * self.loss + 0.03 * loss

    def line(self, seconds: float, factor: float) -> str:
        tokens = self.tokens * distributed.get_world_size()
        return (
            f"{seconds:.0f}s step {self.step} tokens {tokens} tokens/s {tokens / seconds:.0f}"
            f" loss {self.loss:.4f} rate x{factor:.3f}"
        )


def train_phase(
    model: TinyLlama,
    phase: Phase,
    source: Iterator[list[Row]],
    seconds: float,
    save: Callable[[], None],
) -> None:
    """Train for `seconds` of wall time; rank 0 logs, saves on the way and saves at the end."""
    updaters = optimizers(model, phase)
    rates = [[group["lr"] for group in updater.param_groups] for updater in updaters]
    started = logged = saved = time.monotonic()
    progress, done = Progress(), 0.0
    while done < 1:
        factor = rate_factor(done, progress.step, phase.decay_from)
        for updater, base in zip(updaters, rates, strict=True):
            for group, rate in zip(updater.param_groups, base, strict=True):
                group["lr"] = rate * factor
        batch = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(*padded(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for updater in updaters:
            updater.step()
            updater.zero_grad()
        if progress.step % LOCAL_STEPS == 0:
            done = average_weights(model, (time.monotonic() - started) / seconds)
        progress.add(sum(len(row.inputs) for row in batch), loss.item())
        now = time.monotonic()
        if distributed.get_rank() == 0 and now - logged > LOG_SECONDS:
            logged = now
            print(progress.line(now - started, factor), flush=True)
        if distributed.get_rank() == 0 and now - saved > SAVE_SECONDS:
            saved = now
            save()
    if distributed.get_rank() == 0:
        save()


@torch.no_grad()
def average_weights(model: TinyLlama, done: float) -> float:
    """Average weights over the processes; returns the mean of `done`, the same for all."""
    weights = [weight.data for weight in model.parameters()]
    flat = torch.cat([*[weight.flatten() for weight in weights], torch.tensor([done])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for weight in weights:
        weight.copy_(flat[start : start + weight.numel()].view_as(weight))
        start += weight.numel()
    return float(flat[-1])


def build(rank: int, options: argparse.Namespace) -> None:
    """One of several processes that make or continue a role's model together.

    Processes of one thread each: on a shared machine, threads that wait for one another in every
    matrix product lose most of their time. Each process takes its own steps, and all average
    their weights every LOCAL_STEPS steps.
    """
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    out: Path = options.out
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{out.absolute()}/.rendezvous-{options.role}",
        rank=rank,
        world_size=options.processes,
    )
    tokenizer = load_tokenizer(out / "tokenizer")
    checkpoint = out / f"{options.role}.pt"
    model = _model(out, options.role, tokenizer)
    phase = PHASES[options.phase]
    rng = Random(f"{options.seed} {options.role} {options.phase} {rank}")
    source = batches(rows(tokenizer, phase, rng), rng, options.batch_tokens)

    def save() -> None:
        save_checkpoint(model, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)

    train_phase(model, phase, source, options.minutes * 60, save)
    if rank == 0:
        export_role(model, tokenizer, out / options.role)
    distributed.destroy_process_group()


def _model(out: Path, role: str, tokenizer: PreTrainedTokenizerFast) -> TinyLlama:
    """The role's checkpoint; else, for the teacher, the student base grown; else a new model.

    The teacher goes on from the student base because copying words, which the base has learned on
    plain text, is what every task of the teacher rests on.
    """
    sizes = SIZES[role]
    if (out / f"{role}.pt").exists():
        model = load_checkpoint(out / f"{role}.pt")
    elif role == "teacher" and (out / "student.pt").exists():
        model = grown(load_checkpoint(out / "student.pt"), sizes.layers)
        share_spellings(model, tokenizer)
    else:
        shape = Shape(len(tokenizer), sizes.layers, sizes.width, sizes.heads, sizes.inner)
        model = TinyLlama(shape)
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{role}: {count:,} parameters, {len(tokenizer):,} tokens", flush=True)
    return model


@torch.no_grad()
def share_spellings(model: TinyLlama, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give "_meals" the vector of " meals" plus one step that all underscored words share.

    Plain text holds no underscores: without this, each of 500 words is learned a second time.
    """
    ids = tokenizer.get_vocab()
    pairs = [
        (ids[token], ids["\u0120" + token[1:]])
        for token in ids
        if token[0] == "_" and "\u0120" + token[1:] in ids
    ]
    underscored, spaced = (torch.tensor(column) for column in zip(*pairs, strict=True))
    vectors = model.embedding.weight
    step = (vectors[underscored] - vectors[spaced]).mean(0)
    vectors[underscored] = vectors[spaced] + step


def export_role(model: TinyLlama, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The model folder that transformers, vLLM and TRL load."""
    end, pad = tokenizer.convert_tokens_to_ids([END, PAD])
    export(model, folder, end, pad)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and models")
    parser.add_argument("--role", choices=sorted(SIZES), required=True)
    parser.add_argument("--phase", choices=sorted(PHASES), required=True)
    parser.add_argument("--minutes", type=float, required=True, help="wall time of this phase")
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2500, help="of one process")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f".rendezvous-{options.role}").unlink(missing_ok=True)
    if not (options.out / "tokenizer" / "tokenizer.json").exists():
        make_tokenizer().save_pretrained(options.out / "tokenizer")
    torch.multiprocessing.spawn(build, args=(options,), nprocs=options.processes)


if __name__ == "__main__":
    main()
