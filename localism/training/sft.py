"""The training process: python -m localism.training.sft JOB.json -> checkpoints/epoch-NN, log

Started by stages/train_child.py, which says what everything in the job means. TRL's SFTTrainer does
the work; what is in this room is the recipe, the tokens that are trained on, the log, and
checkpoints that are either whole or absent.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localism.errors import LocalismError
from localism.training import beats
from localism.training.job import Job
from localism.training.recorder import Recorder, append
from localism.training.saving import check_mergeable
from localism.training.trainer import build

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Train as the job file says; an error that a user can fix goes to the log as a line."""
    file, *place = arguments
    job = Job.read(Path(file))
    is_worker = "LOCAL_RANK" in os.environ
    parent = int(place[2]) if place else job.parent
    end_with_parent(None if is_worker else parent)
    if job.processes > 1 and not is_worker:
        # exec keeps this process and its tie to the parent.
        os.execv(sys.executable, [sys.executable, *launcher(job, file, place)])
    if job.machines > 1 and os.environ["LOCAL_RANK"] == "0":
        beats.begin(Path(file).parent, int(os.environ["GROUP_RANK"]))
    try:
        train(job)
    except LocalismError as error:
        texts = {"problem": error.problem, "where": error.where, "fix": error.fix}
        append(job, {"error": {"kind": type(error).__name__, **texts}})
        return error.exit_code
    return 0


def launcher(job: Job, file: str, place: Sequence[str]) -> list[str]:
    """torchrun with this machine's processes; `place` is its number and where the others meet it.

    A machine that fails fails all: none is started again, because the stage itself resumes.
    """
    words = ["-m", "torch.distributed.run", f"--nproc_per_node={job.processes // job.machines}"]
    if place:
        words += [f"--nnodes={job.machines}", f"--node_rank={place[0]}"]
        words += ["--rdzv_backend=static", f"--rdzv_endpoint={place[1]}"]
    else:
        words += ["--standalone"]
    return [*words, "-m", "localism.training.sft", file]


def end_with_parent(parent: int | None) -> None:
    """Have the kernel end this process when its parent ends, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        sys.exit("localism ended before its training process had started")


def train(job: Job) -> None:
    """Build the trainer, attach the recorder, and train from the start or the last checkpoint."""
    from transformers import PrinterCallback, TrainerCallback

    built = build(job)
    if job.method == "lora":
        where = f"[train].lora_targets = {list(job.lora_targets)}"
        check_mergeable(built.trainer.model, Path(job.model), where)
    recorder = Recorder(job, built)

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

    built.trainer.add_callback(Hooks())
    built.trainer.remove_callback(PrinterCallback)
    built.trainer.train(resume_from_checkpoint=job.resume_from)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
