"""A job -> TRL's trainer: model, data and the recipe in TRL's words, for the machine at hand."""

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from localism.errors import ConfigError, MachineError
from localism.training.job import Job
from localism.training.tokens import Tokenized, end_token, tokenize


class Attention(NamedTuple):
    """How the model attends, and why so."""

    implementation: str | None
    """A name that transformers knows; None leaves it the choice."""
    reason: str
    """In words, for the log."""


class Built(NamedTuple):
    """A trainer, and what only its making showed."""

    trainer: Any
    """TRL's SFTTrainer."""
    train: Tokenized
    """What is trained on, before packing."""
    attention: str
    """What the model attends with, and why."""


def build(job: Job) -> Built:
    """A trainer that holds the model, the tokenized data and the recipe of the job.

    Raises ConfigError for a chat template that can't be trained on, MachineError for a GPU that
    torch can't use.
    """
    import datasets
    import torch
    import transformers
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        """TRL's trainer without its model card, which speaks of a hub."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write none: the report has a data card, and checkpoints are this run's own."""

    def as_dataset(tokenized: Tokenized) -> datasets.Dataset:
        return datasets.Dataset(datasets.table.InMemoryTable(tokenized.table))

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(job.threads)
    if job.device == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "nvidia-smi lists a GPU that torch can't use",
            where=f"torch {torch.__version__}",
            fix="make setup LOCK=requirements/gpu.txt, or train on the CPU: CUDA_VISIBLE_DEVICES=",
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        job.model, trust_remote_code=job.trust_remote_code
    )
    if job.chat_template:
        tokenizer.chat_template = Path(job.chat_template).read_text()
    where = f"[student].path = {job.model!r}"
    end = end_token(tokenizer, where)
    train, dev = (
        tokenize(Path(file), tokenizer, end, job.max_length, where)
        for file in (job.train_file, job.dev_file)
    )
    if not train.table.num_rows:
        raise ConfigError(
            f"no example has room for a response within {job.max_length:,} tokens",
            where=f"[train].max_length = {job.max_length}",
            fix="a larger max_length, in a fork of this run",
        )
    attention = choose_attention(job)
    if job.sharded:
        shard_from_the_start()
    trainer = Trainer(
        model=job.model,
        args=settings(job, end, attention.implementation),
        train_dataset=as_dataset(train),
        eval_dataset=as_dataset(dev) if dev.table.num_rows else None,
        processing_class=tokenizer,
        peft_config=lora(job) if job.method == "lora" else None,
    )
    world = trainer.accelerator.num_processes
    assert world == job.processes, f"{world} processes train together, {job.processes} were meant"
    if job.sharded:
        keep_precision(trainer.accelerator.state.fsdp_plugin)
    make_servable(trainer.model.generation_config)
    used = trainer.model.config.get_text_config()._attn_implementation
    return Built(trainer, train, f"{used} ({attention.reason})")


def choose_attention(job: Job) -> Attention:
    """Flash attention where there is a GPU, the package, and a model that can use it."""
    import torch
    import transformers

    if job.device != "cuda":
        return Attention(None, "on the CPU")
    if not torch.cuda.is_bf16_supported():
        return Attention(None, "this GPU has no bfloat16")
    installed = [
        name
        for name, is_there in (
            ("flash_attention_3", transformers.utils.is_flash_attn_3_available),
            ("flash_attention_2", transformers.utils.is_flash_attn_2_available),
        )
        if is_there()
    ]
    if not installed:
        return Attention(None, "flash-attn is not installed")
    config = transformers.AutoConfig.from_pretrained(
        job.model, trust_remote_code=job.trust_remote_code
    )
    known = transformers.AutoModelForCausalLM._model_mapping
    if type(config) not in known or not known[type(config)]._supports_flash_attn:
        return Attention(None, f"flash attention does not know {config.model_type}")
    return Attention(installed[0], "flash-attn is installed")


def lora(job: Job) -> Any:
    """LoRA on every linear layer but the last, or on those that the job names."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=job.lora_rank,
        lora_alpha=job.lora_alpha,
        target_modules=list(job.lora_targets) or "all-linear",
    )


def settings(job: Job, end: str, attention: str | None) -> Any:
    """The recipe in TRL's words: paper C.1, AdamW, linear warmup, cosine to zero."""
    import torch
    from trl import SFTConfig

    on_gpu = job.device == "cuda"
    model: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if on_gpu and job.method == "lora":
        model["dtype"] = "auto"  # what LoRA leaves alone needs no float32 copy
    return SFTConfig(
        output_dir=job.checkpoints,
        model_init_kwargs=model or None,
        num_train_epochs=job.epochs,
        per_device_train_batch_size=job.micro_batch,
        gradient_accumulation_steps=job.accumulation,
        learning_rate=job.learning_rate,
        lr_scheduler_type="cosine",
        # From 1 upwards transformers takes it for a number of steps.
        warmup_steps=min(job.warmup, 0.999),
        weight_decay=job.weight_decay,
        max_length=job.max_length,
        packing=job.packing,
        eval_packing=False,
        eos_token=end,
        # The weights stay float32; bf16 is autocast, or FSDP2's precision of computing.
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        ddp_backend="gloo" if job.processes > 1 and not on_gpu else None,
        dataloader_pin_memory=on_gpu,
        gradient_checkpointing=job.gradient_checkpointing and not job.sharded,
        fsdp=job.sharded or None,
        fsdp_config=sharding(job) if job.sharded else None,
        # Else every process keeps a whole model's gradients from one micro-batch to the next.
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}}
        if job.sharded
        else None,
        seed=job.seed,
        trust_remote_code=job.trust_remote_code,
        save_strategy="epoch",
        eval_strategy="no",
        logging_steps=1,
        # By default a NaN is logged as the mean of the losses before it.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )


def sharding(job: Job) -> dict[str, Any]:
    """FSDP2: each transformer block is a unit, found by the model's own list of them."""
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
        "cpu_ram_efficient_loading": True,
        "state_dict_type": "FULL_STATE_DICT",
        # FSDP's own: the model's would gather every block once more on the way back.
        "activation_checkpointing": job.gradient_checkpointing,
    }


def shard_from_the_start() -> None:
    """Say early what the settings say too late, as accelerate's own launcher does.

    TRL loads the model before there is an accelerator: each process would hold all its weights. And
    whole state dicts lie in the CPU's memory, for which the processes need gloo beside NCCL.
    """
    from accelerate.utils import enable_fsdp_ram_efficient_loading

    os.environ["FSDP_STATE_DICT_TYPE"] = "FULL_STATE_DICT"
    enable_fsdp_ram_efficient_loading()


def keep_precision(plugin: Any) -> None:
    """Gradients are summed over the processes in float32, and a token's loss stays float32.

    accelerate's own policy does both in bfloat16, of which a loss of 2.34 keeps two digits.
    """
    import torch

    policy = plugin.mixed_precision_policy
    if policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            policy, reduce_dtype=torch.float32, output_dtype=None
        )


def make_servable(generation: Any) -> None:
    """Mend settings that transformers loads and refuses to save, hours later.

    Some base models come with a temperature and without the do_sample that it needs.
    """
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
