"""The training process: python -m localism.training.sft JOB.json -> checkpoints/epoch-NN, log

Started by stages/train.py, which says what everything in the job means. TRL's SFTTrainer does the
work; what is here is the recipe, the log, and checkpoints that are either whole or absent.
"""

import ctypes
import json
import math
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from localism.errors import ConfigError, LocalismError, MachineError, StageError
from localism.training.job import CHECKPOINT_FACTS, OPTIMIZER, Job, log_lines

PR_SET_PDEATHSIG = 1
IGNORED = -100  # the label of tokens without loss


def main(arguments: list[str]) -> int:
    """Train as the job file says; an error that a user can fix goes to the log as a line."""
    job = Job.read(Path(arguments[0]))
    is_worker = "LOCAL_RANK" in os.environ
    end_with_parent(None if is_worker else job.parent)
    if job.processes > 1 and not is_worker:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
        worker = ["-m", "localism.training.sft", arguments[0]]
        # exec keeps this process and its tie to the parent.
        os.execv(sys.executable, [sys.executable, *launcher, str(job.processes), *worker])
    try:
        train(job)
    except LocalismError as error:
        texts = {"problem": error.problem, "where": error.where, "fix": error.fix}
        append(job, {"error": {"kind": type(error).__name__, **texts}})
        return error.exit_code
    return 0


def end_with_parent(parent: int | None) -> None:
    """Have the kernel end this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        sys.exit("localism ended before its training process had started")


def append(job: Job, line: dict[str, Any]) -> None:
    """Add a line to the log that the parent follows."""
    with Path(job.log).open("a") as file:
        file.write(json.dumps(line) + "\n")


def train(job: Job) -> None:
    """Build the trainer, attach the recorder, and train from the start or the last checkpoint."""
    from transformers import PrinterCallback, TrainerCallback

    trainer = build(job)
    recorder = Recorder(job, trainer)

    class Hooks(TrainerCallback):
        """What the trainer calls, handed to the recorder."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recorder.begin(state)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any
        ) -> None:
            if "loss" in logs:
                recorder.step(state, logs)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            recorder.save(state)

    trainer.add_callback(Hooks())
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=job.resume_from)


# ---- the recipe ----------------------------------------------------------------------------


def build(job: Job) -> Any:
    """An SFTTrainer that holds the model, the tokenized data and the recipe of the job."""
    import datasets
    import torch
    import transformers
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        """TRL's trainer without its model card, which speaks of a hub."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write none: the report has a data card, and checkpoints are this run's own."""

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
    development = read_rows(job.dev_file)
    trainer = Trainer(
        model=job.model,
        args=settings(job, end_token(tokenizer, job)),
        train_dataset=datasets.Dataset.from_list(read_rows(job.train_file)),
        eval_dataset=datasets.Dataset.from_list(development) if development else None,
        processing_class=tokenizer,
    )
    world = trainer.accelerator.num_processes
    assert world == job.processes, f"{world} processes train together, {job.processes} were meant"
    make_servable(trainer.model.generation_config)
    return trainer


def settings(job: Job, end: str) -> Any:
    """The recipe in TRL's words: paper C.1, AdamW, linear warmup, cosine to zero."""
    import torch
    from trl import SFTConfig

    on_gpu = job.device == "cuda"
    return SFTConfig(
        output_dir=job.checkpoints,
        num_train_epochs=job.epochs,
        per_device_train_batch_size=job.micro_batch,
        gradient_accumulation_steps=job.accumulation,
        learning_rate=job.learning_rate,
        lr_scheduler_type="cosine",
        # From 1 upwards transformers takes it for a number of steps.
        warmup_steps=min(job.warmup, 0.999),
        weight_decay=job.weight_decay,
        max_length=job.max_length,
        eos_token=end,
        # The weights stay float32; bf16 is autocast.
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        use_cpu=not on_gpu,
        ddp_backend="gloo" if job.processes > 1 and not on_gpu else None,
        dataloader_pin_memory=on_gpu,
        gradient_checkpointing=job.gradient_checkpointing,
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


def read_rows(path: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def end_token(tokenizer: Any, job: Job) -> str:
    """The token with which the chat template ends a reply: what the engine must stop at.

    It need not be the tokenizer's own end of text (Qwen's base models differ). Raises ConfigError
    when the template writes none: a model trained on it would never stop.
    """
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}
    asked = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template([user, assistant], return_dict=False)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ends = [token for token in whole[len(asked) :] if token in special]
    if not ends:
        raise ConfigError(
            "the student's chat template writes no end token after a reply, so the model would "
            "never learn to stop",
            where=f"[student].path = {job.model!r}",
            fix="let the template write eos_token after the assistant's content; without any "
            "template the built-in one is used",
        )
    return str(tokenizer.convert_ids_to_tokens(ends[-1]))


def make_servable(generation: Any) -> None:
    """Mend settings that transformers loads and refuses to save, hours later.

    Some base models come with a temperature and without the do_sample that it needs.
    """
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True


# ---- what is recorded ----------------------------------------------------------------------


class Recorder:
    """Writes the log and turns what TRL saves into whole checkpoints."""

    def __init__(self, job: Job, trainer: Any) -> None:
        self._job, self._trainer = job, trainer
        self._losses: list[float] = []
        self._started = time.monotonic()
        lines = log_lines(Path(job.log))
        # TRL counts from zero again when it resumes.
        self._tokens_before = lines[-1].get("tokens", 0) if lines else 0

    def begin(self, state: Any) -> None:
        """Before the first step: what is trained on, and how well the base model does on dev."""
        self._started = time.monotonic()
        if state.global_step:
            return
        loss = dev_loss(self._trainer)
        if state.is_world_process_zero:
            line = {"step": 0, "steps": state.max_steps, "epoch": 0.0, "dev_loss": loss}
            append(self._job, {**line, **data_counts(self._job, self._trainer)})

    def step(self, state: Any, logs: dict[str, float]) -> None:
        """After each step. Raises StageError when the loss is no longer a number."""
        loss, step = logs["loss"], state.global_step
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is {loss} at step {step}; checkpoints before it are kept",
                where=f"[train].learning_rate = {self._job.learning_rate:g}",
                fix="a smaller learning_rate, in a fork of this run",
            )
        self._losses.append(loss)
        if state.is_world_process_zero:
            tokens = int(logs["num_tokens"])
            append(
                self._job,
                {
                    "step": step,
                    "steps": state.max_steps,
                    "epoch": round(state.epoch, 6),
                    "loss": loss,
                    "learning_rate": logs["learning_rate"],
                    "tokens": self._tokens_before + tokens,
                    "tokens_per_second": tokens / (time.monotonic() - self._started),
                },
            )

    def save(self, state: Any) -> None:
        """After TRL has written checkpoint-STEP: measure, complete it, and give it its name.

        The rename comes last and is atomic, so that a folder called epoch-NN is always whole.
        """
        loss = dev_loss(self._trainer)
        mean = sum(self._losses) / len(self._losses)
        self._losses.clear()
        self._trainer.accelerator.wait_for_everyone()  # each process writes a file of its own
        if not state.is_world_process_zero:
            return
        folder, epoch = Path(self._job.checkpoints), round(state.epoch)
        written, whole = folder / f"checkpoint-{state.global_step}", folder / f"epoch-{epoch:02d}"
        facts = {
            "epoch": epoch,
            "step": state.global_step,
            "train_loss": mean,
            "dev_loss": loss,
        }
        (written / CHECKPOINT_FACTS).write_text(json.dumps(facts) + "\n")
        (written / "training_args.bin").unlink()  # a pickle of paths that nothing reads
        for path in [*written.iterdir(), written]:
            sync(path)
        shutil.rmtree(whole, ignore_errors=True)
        written.rename(whole)
        sync(folder)
        for older in folder.glob(f"epoch-*/{OPTIMIZER}"):
            if older.parent != whole:
                older.unlink()


def data_counts(job: Job, trainer: Any) -> dict[str, int]:
    """Examples in training, left out (no room for a response) and cut at max_length."""
    kept, end = trainer.train_dataset, trainer.processing_class.eos_token_id
    # A template may write a line break or two after its end token.
    cut = sum(len(labels) == job.max_length and end not in labels[-3:] for labels in kept["labels"])
    total = len(read_rows(job.train_file))
    return {"examples": len(kept), "dropped": total - len(kept), "cut": cut}


def dev_loss(trainer: Any) -> float | None:
    """Mean cross-entropy in nats of a response token on dev; None without dev examples.

    Each example on its own, so that padding and batches play no part; every process takes its
    share. The trainer's own evaluation would average over batches instead of tokens.
    """
    import torch

    rows, model = trainer.eval_dataset, trainer.model
    if rows is None:
        return None
    rank, processes = trainer.accelerator.process_index, trainer.accelerator.num_processes
    sums = torch.zeros(2, dtype=torch.float64, device=model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for index in range(rank, len(rows), processes):
            tokens = torch.tensor([rows[index]["input_ids"]], device=model.device)
            labels = torch.tensor([rows[index]["labels"]], device=model.device)
            counted = (labels[:, 1:] != IGNORED).sum()
            loss = model(input_ids=tokens, labels=labels, use_cache=False).loss
            sums += torch.stack((loss * counted, counted)).double()
    model.train(was_training)
    total, count = trainer.accelerator.reduce(sums, "sum").tolist()
    return total / count if count else None


def sync(path: Path) -> None:
    """Have the disk take a file or a folder's names before what follows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
