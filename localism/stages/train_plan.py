"""Configuration, base model and machine -> the job of a training, with what was derived and why.

What the user left open comes from the paper's table 9 (learning rate by model family), the size of
the set (epochs) and the memory of the devices (micro-batch). Nothing here loads a model.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from localism import weights
from localism.config import Config, Train
from localism.context import Context
from localism.errors import ConfigError, MachineError
from localism.gpus import Gpus, find_gpus
from localism.offline import child_environment
from localism.paths import embedded
from localism.records import stable_id
from localism.stages.train_machines import find_machines
from localism.tables import gigabytes, number_of
from localism.training.job import CHECKPOINTS, Job
from localism.training.sets import Training

TEMPLATE = Path(__file__).parent.parent / "templates" / "alpaca.jinja"

# Paper, table 9, by the beginning of config.json's model_type.
LEARNING_RATES = {"llama": 2e-5, "mistral": 2e-6, "gemma": 1e-6}
OTHER_LEARNING_RATE = 2e-5
LORA_FACTOR = 10.0  # matrices that start at zero want larger steps than weights that are there
EPOCHS, FEW_EPOCHS = 15, 3  # paper C.1: 3 for the 52,000 examples of Alpaca
MANY_EXAMPLES = 20_000
CPU_MICRO_BATCH = 8
MEMORY_SHARE = 0.8  # of a GPU; the rest is for the kernels' workspace and fragments

FLOAT32, HALF = 4, 2
ADAM = 8  # two float32 a parameter


class Plan(NamedTuple):
    """A job, and what of it was derived."""

    job: Job
    """From the start: nothing to resume."""
    derived: str
    """In a line, with reasons."""


class Shape(NamedTuple):
    """What config.json says about a model's size; None where it doesn't."""

    family: str
    """model_type."""
    dtype: str
    """Of the weights on disk."""
    positions: int | None
    """Longest text that the model was made for."""
    layers: int
    hidden: int
    inner: int
    """Width of the feed-forward layers."""
    vocabulary: int


def chat_template_file(context: Context) -> Path | None:
    """The template that an engine must be given for the student's base model, or None.

    None means that the base model brings its own. Checkpoints always carry theirs.
    """
    return None if weights.has_chat_template(embedded(context.config.student.path)) else TEMPLATE


def plan(context: Context, training: Training, work: Path, count: int) -> Plan:
    """The job for `count` examples on this machine, whose data lies in folder `work`.

    Raises ConfigError when the batch can't be divided, MachineError for a model that can't fit.
    """
    config, section = context.config, context.config.train
    machines, gpus = _hardware(context)
    processes = machines * max(1, gpus.number)
    base = embedded(config.student.path)
    shape = shape_of(base)
    template = chat_template_file(context)
    _check_targets(section.lora_targets, base)
    epochs, why_epochs = derive_epochs(section, count)
    rate, why_rate = derive_learning_rate(section, shape.family)
    micro_batch, why_micro_batch = derive_micro_batch(config, base, shape, gpus, machines)
    accumulation = accumulation_steps(section.batch, processes, micro_batch)
    cores = section.threads or len(os.sched_getaffinity(0))
    job = Job(
        identity=_identity(config, training, work, base, template),
        model=str(base),
        train_file=str(work / "train.jsonl"),
        dev_file=str(work / "dev.jsonl"),
        checkpoints=str((training.home(context.folder) / CHECKPOINTS).resolve()),
        log=str(work / "log.jsonl"),
        chat_template=str(template) if template else None,
        resume_from=None,
        tensorboard=str(work / "tensorboard"),
        parent=os.getpid(),
        device="cuda" if gpus.number else "cpu",
        machines=machines,
        silence_seconds=section.silence_seconds,
        processes=processes,
        sharded=gpus.number * machines > 1,
        threads=max(1, cores // max(1, gpus.number)),
        method=section.method,
        lora_rank=section.lora_rank,
        lora_alpha=section.lora_alpha,
        lora_targets=section.lora_targets,
        packing=section.packing,
        weights_dtype=served_dtype(config, shape),
        epochs=epochs,
        learning_rate=rate,
        micro_batch=micro_batch,
        accumulation=accumulation,
        warmup=section.warmup,
        weight_decay=section.weight_decay,
        max_length=min(section.max_length, shape.positions or section.max_length),
        gradient_checkpointing=section.gradient_checkpointing,
        seed=training.seed,
        trust_remote_code=config.student.trust_remote_code,
    )
    derived = (
        f"{job.method} fine-tuning, {number_of(epochs, 'epoch')}{why_epochs}, "
        f"learning rate {rate:g}{why_rate},"
        f" batch {section.batch} = {_devices(machines, gpus)} x {micro_batch}{why_micro_batch}"
        f" x {accumulation}"
    )
    return Plan(job, derived)


def check(context: Context) -> None:
    """Raise what plan would of the machine and the batch, before hours go into data."""
    config = context.config
    (machines, gpus), base = _hardware(context), embedded(config.student.path)
    micro_batch, _ = derive_micro_batch(config, base, shape_of(base), gpus, machines)
    accumulation_steps(config.train.batch, machines * max(1, gpus.number), micro_batch)
    _check_targets(config.train.lora_targets, base)


def _hardware(context: Context) -> tuple[int, Gpus]:
    """Machines, and the GPUs of this one; those of the others must be as many."""
    environment = child_environment(context.folder)
    return find_machines(context.config.train, environment).number, find_gpus(environment)


def _devices(machines: int, gpus: Gpus) -> str:
    """2 machines x 8 GPUs."""
    if gpus.number:
        each = f"{gpus.number} GPU{'s' if gpus.number > 1 else ''}"
    else:
        each = "1 CPU process"
    return f"{machines} machines x {each}" if machines > 1 else each


def served_dtype(config: Config, shape: Shape) -> str:
    """The precision in which the engine will hold the student, as serving.engine starts it."""
    asked = config.student.dtype
    return asked if asked != "auto" else shape.dtype


def _identity(
    config: Config, training: Training, work: Path, base: Path, template: Path | None
) -> str:
    data = [_sha256(work / f"{split}.jsonl") for split in ("train", "dev")]
    text = template.read_text() if template else None
    recipe = config.recipe()["train"]
    return stable_id(data, weights.fingerprint(base), text, recipe, training.seed)


def _check_targets(targets: Sequence[str], base: Path) -> None:
    """ConfigError for a name in lora_targets that no layer of the base has."""
    matrices = [name for name, shape in weights.folder_shapes(base).items() if len(shape) == 2]
    layers = {name.removesuffix(".weight").rpartition(".")[2] for name in matrices}
    for unknown in sorted(set(targets) - layers):
        raise ConfigError(
            f"the student has no layer {unknown!r}",
            where=f"[train].lora_targets = {list(targets)}",
            fix=f"leave it away, or choose from: {', '.join(sorted(layers))}",
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- what the user may leave open --------------------------------------------------------------


def derive_epochs(section: Train, examples: int) -> tuple[int, str]:
    """Passes over the data, and why so many if the user didn't say."""
    if section.epochs is not None:
        return section.epochs, ""
    if examples < MANY_EXAMPLES:
        return EPOCHS, " (paper C.1)"
    return FEW_EPOCHS, f" (paper C.1, for sets as large as {examples:,})"


def derive_learning_rate(section: Train, family: str) -> tuple[float, str]:
    """The peak, and where it comes from if the user didn't say."""
    if section.learning_rate is not None:
        return section.learning_rate, ""
    known = [start for start in LEARNING_RATES if family.startswith(start)]
    rate = LEARNING_RATES[known[0]] if known else OTHER_LEARNING_RATE
    reason = f"table 9 for {known[0]}" if known else f"{family} is not in table 9"
    if section.method == "lora":
        return rate * LORA_FACTOR, f" ({reason}, times {LORA_FACTOR:g} for LoRA)"
    return rate, f" ({reason})"


def derive_micro_batch(
    config: Config, base: Path, shape: Shape, gpus: Gpus, machines: int = 1
) -> tuple[int, str]:
    """Examples a device and pass: the most that an estimate of the memory allows.

    Raises MachineError when weights and optimizer alone are more than the GPUs hold.
    """
    section = config.train
    if section.micro_batch is not None:
        return section.micro_batch, ""
    devices = machines * max(1, gpus.number)
    share = max(1, section.batch // devices)
    if not gpus.number:
        return largest_divisor(share, CPU_MICRO_BATCH), ""
    if gpus.memory is None:
        return 1, " (nvidia-smi does not say how much memory there is)"
    parameters = weights.parameter_count(base)
    fixed = state_bytes(section.method, parameters, devices, shape)
    fixed += passing_bytes(section.method, parameters, devices, shape)
    room = MEMORY_SHARE * gpus.memory - fixed
    if room <= 0:
        raise MachineError(
            f"training needs {gigabytes(fixed)} on each GPU for weights, gradients and optimizer,"
            f" and {gigabytes(MEMORY_SHARE * gpus.memory)} of each are to be used",
            where=f"{devices} x {gigabytes(gpus.memory)}, [train].method = {section.method!r}",
            fix="more GPUs, a smaller student, or [train].method = 'lora'",
        )
    length = min(section.max_length, shape.positions or section.max_length)
    most = int(room / (length * token_bytes(shape, section.gradient_checkpointing, devices)))
    found = largest_divisor(share, max(1, most))
    return found, f" (of {gigabytes(gpus.memory)}, {gigabytes(fixed)} hold weights and optimizer)"


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is not above the limit."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def state_bytes(method: str, parameters: int, devices: int, shape: Shape) -> int:
    """What each GPU holds all the time: float32 weights, gradients and AdamW's two; or the base.

    Sharded over the GPUs of all machines. What LoRA adds is too little to count.
    """
    each = weight_bytes(shape.dtype) if method == "lora" else FLOAT32 + FLOAT32 + ADAM
    return parameters * each // devices


def passing_bytes(method: str, parameters: int, devices: int, shape: Shape) -> int:
    """What each GPU holds for a while in every pass, however small the batch.

    One GPU: autocast's bf16 copies of the weights, and the gradient of TRL's output layer, which is
    summed apart. Sharded: two gathered blocks and the gradients of one, and the gathered output
    layer with its gradient in both precisions.
    """
    embedding = shape.vocabulary * shape.hidden
    block = max(0, parameters - 2 * embedding) // max(1, shape.layers)
    if method == "lora":
        return 0 if devices == 1 else HALF * (2 * block + embedding)
    if devices == 1:
        return HALF * parameters + FLOAT32 * embedding
    return (3 * HALF + FLOAT32) * block + (2 * HALF + FLOAT32) * embedding


def token_bytes(shape: Shape, checkpointing: bool, devices: int) -> int:
    """An estimate of what one token takes on the way forward and back, in bf16.

    Inside a block: about 16 vectors of the model's width and 6 of the feed-forward's. With
    checkpointing one block is whole at a time and the others keep their input, which between blocks
    is float32 under autocast, on one GPU, and bf16 where the weights are gathered as such.
    """
    block = HALF * (16 * shape.hidden + 6 * shape.inner)
    if not checkpointing:
        return block * shape.layers
    return block + shape.layers * (FLOAT32 if devices == 1 else HALF) * shape.hidden


def accumulation_steps(batch: int, processes: int, micro_batch: int) -> int:
    """Forward passes a step, so that all processes together see `batch` examples."""
    at_once = processes * micro_batch
    if batch % at_once:
        whole = [m for m in range(1, micro_batch + 1) if batch % (processes * m) == 0]
        fix = (
            f"micro_batch = {whole[-1]}"
            if whole
            else f"fewer than {processes} devices (CUDA_VISIBLE_DEVICES, [train].nodes)"
        )
        raise ConfigError(
            f"a batch of {batch} can't be divided over {processes} devices x {micro_batch}",
            where=f"[train].batch = {batch}, [train].micro_batch = {micro_batch}",
            fix=f"a multiple of {at_once} as batch, or {fix}",
        )
    return batch // at_once


# ---- the machine and the model -----------------------------------------------------------------


def shape_of(base: Path) -> Shape:
    """Size and kind of a model, from its config.json; what it doesn't say counts as 0."""
    config: dict[str, Any] = json.loads((base / "config.json").read_text())
    text = config.get("text_config", config)
    hidden = text.get("hidden_size", 0)
    dtype = config.get("dtype") or config.get("torch_dtype")
    return Shape(
        family=config.get("model_type", ""),
        dtype=dtype if dtype in ("bfloat16", "float16") else "float32",
        positions=text.get("max_position_embeddings"),
        layers=text.get("num_hidden_layers", 0),
        hidden=hidden,
        inner=text.get("intermediate_size", 4 * hidden),
        vocabulary=text.get("vocab_size", 0),
    )


def check_disk(job: Job, epochs_done: int) -> None:
    """Refuse to start what can't be stored: weights of every epoch left, and the trainer's state.

    While a checkpoint is written, the one before still has its state.
    """
    parameters = weights.parameter_count(Path(job.model))
    stored = weight_bytes(job.weights_dtype)
    left = job.epochs - epochs_done
    states = 1 if epochs_done else min(2, left)
    state = resume_bytes(job.method, job.weights_dtype, job.sharded)
    needed = parameters * (left * stored + states * state)
    free = shutil.disk_usage(job.checkpoints).free
    if needed > free:
        raise MachineError(
            f"{number_of(left, 'checkpoint needs', 'checkpoints need')} {gigabytes(needed)} and "
            f"{gigabytes(free)} are free",
            where=job.checkpoints,
            fix=f"free {gigabytes(needed - free)}, use a larger disk, or train fewer epochs",
        )


def weight_bytes(dtype: str) -> int:
    """Bytes of a parameter."""
    return FLOAT32 if dtype == "float32" else HALF


def resume_bytes(method: str, dtype: str, is_sharded: bool) -> int:
    """Bytes a parameter of what the latest checkpoint has beside its weights.

    AdamW's two and, unless the checkpoint's own file (of this dtype) serves, float32 weights. Of
    LoRA next to nothing.
    """
    if method == "lora":
        return 0
    shares_file = dtype == "float32" and not is_sharded
    return ADAM if shares_file else ADAM + FLOAT32
