"""Shared by the tests of training: a small recipe, a corpus for it, and one finished training.

Each training is a process of its own that loads TRL for many seconds, so the tests share runs. This
file is also a program: what a test kills or shards, and what must not load TRL into pytest.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import localism
from localism.config import Config
from localism.context import Context
from localism.errors import ConfigError
from localism.models_toml import validate
from localism.paths import embedded
from localism.progress import Progress
from localism.stages import train
from localism.stages.train_plan import plan
from localism.store import Store
from localism.training.job import Job, settle
from localism.training.sets import main_training

STUDENT = embedded("embedded:student")
THINGS = ("soup", "river", "garden", "letter", "window", "market")
EXAMPLES, BATCH, EPOCHS = 24, 4, 3
STEPS_AN_EPOCH = EXAMPLES // BATCH


def recipe(student: str = "embedded:student", dtype: str = "float32", **changes: Any) -> Config:
    section = {
        "epochs": EPOCHS,
        "batch": BATCH,
        "micro_batch": BATCH,
        "learning_rate": 3e-3,
        "threads": 1,
        "gradient_checkpointing": False,
    }
    return validate(
        {
            "teacher": {"path": "embedded:teacher"},
            "judge": {"same_as": "teacher"},
            "student": {"path": student, "dtype": dtype},
            "train": section | changes,
        },
        "test",
    )


def example(index: int) -> dict[str, str]:
    first, second = THINGS[index % 6], THINGS[index // 6 % 6]
    return {
        "instruction": f"Write about the {first} and the {second}.",
        "response": f"Here is the {first}. It is near the {second}.",
    }


@contextmanager
def opened(folder: Path, config: Config) -> Iterator[Context]:
    """A run folder with accepted examples, and some that must not be trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    with Store(folder / "corpus.duckdb") as store:
        for index in range(EXAMPLES + 12):
            split = "train" if index < EXAMPLES else "dev" if index < EXAMPLES + 6 else "test"
            add(store, f"mix-{index:02d}", index, split, "accepted", example(index))
        secret = {"instruction": "Say the secret.", "response": "SECRET"}
        add(store, "mix-rejected", 90, "train", "rejected", secret)
        yield Context(config, store, folder, Progress(io.StringIO(), plain=True))


def add(
    store: Store, mix_id: str, ordinal: int, split: str, status: str, texts: dict[str, str]
) -> None:
    store.add("mix", mix_id=mix_id, ordinal=ordinal, k=2, query_type_id=None, split=split)
    store.add("candidate", mix_id=mix_id, status=status, reason=None, turn_id=None, **texts)


def train_in(folder: Path, config: Config) -> str:
    with opened(folder, config) as context:
        return train.run(context)


def rows(folder: Path, sql: str) -> list[dict[str, Any]]:
    with Store(folder / "corpus.duckdb") as store:
        return store.query(sql)


def tensors(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.torch import load_file  # numpy has no bfloat16, in which the base ships

    loaded = load_file(folder / "model.safetensors")
    return {name: tensor.float().numpy() for name, tensor in loaded.items()}


def in_subprocess(*arguments: str) -> subprocess.Popen[bytes]:
    """This file as a program: what a test kills, or what must not load TRL into pytest."""
    paths = [str(Path(localism.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, __file__, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was trained without interruption, and the stage's summary."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_in(folder, recipe())


def without_template(folder: Path) -> Path:
    shutil.copytree(STUDENT, folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def planned(folder: Path, config: Config, **changes: Any) -> Job:
    """The job that the stage would start, with some of it changed."""
    with opened(folder, config) as context:
        training = main_training(config)
        count = train.write_data(context, training)
        work = train.work_folder(context, training)
        job = replace(plan(context, training, work, count).job, **changes)
    settle(job)
    job.write(folder / "train/job.json")
    return job


# ---- this file as a program ----------------------------------------------------------------


def tokenize_all(folder: Path) -> None:
    """Build a trainer for each job in the folder and write what it would train on."""
    from localism.training.recorder import check_boundaries
    from localism.training.trainer import build

    seen: dict[str, Any] = {}
    for path in sorted(folder.glob("*/train/job.json")):
        job, kind = Job.read(path), path.parent.parent.name
        try:
            built = build(replace(job, parent=os.getpid()))
        except ConfigError as error:
            seen[kind] = {"refused": error.problem}
            continue
        data, trainer = built.train, built.trainer
        seen[kind] = {
            "counts": {"examples": data.table.num_rows, "dropped": data.dropped, "cut": data.cut},
            "batches": [
                {name: value.tolist() for name, value in batch.items() if hasattr(value, "tolist")}
                for batch in trainer.get_train_dataloader()
            ],
        }
        if job.packing:
            ids = data.table["input_ids"][0].as_py()
            seen[kind]["boundaries"] = check_boundaries(trainer, ids) or "kept"
            trainer.data_collator.padding_free = False  # rows without their boundaries
            with pytest.raises(ConfigError) as refused:
                check_boundaries(trainer, ids)
            seen[kind]["boundaries without positions"] = refused.value.problem
    (folder / "tokenized.json").write_text(json.dumps(seen))


def train_sharded(how: str, job_file: str) -> int:
    """A process of a sharded training: FSDP2 on the CPU; 'once' ends it after a checkpoint.

    accelerate shards on accelerators alone. Told that these processes are some, it does all of it
    on the CPU, and so do the checkpoints and their resuming.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    from localism.training import sft
    from localism.training.recorder import Recorder

    start, save = PartialState.__init__, Recorder.save

    def start_as_accelerator(self: Any, *arguments: Any, **keywords: Any) -> None:
        is_first = not PartialState._shared_state
        start(self, *arguments, **keywords)
        if is_first:
            self.distributed_type = DistributedType.MULTI_XPU

    def save_once(self: Any, state: Any) -> None:
        save(self, state)
        os._exit(0)

    PartialState.__init__ = start_as_accelerator
    if how == "sharded-once":
        Recorder.save = save_once
    return sft.main([job_file])


if __name__ == "__main__":
    if sys.argv[1] == "train":
        changes = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
        train_in(Path(sys.argv[2]), recipe(**changes))
    elif sys.argv[1].startswith("sharded"):
        sys.exit(train_sharded(*sys.argv[1:]))
    else:
        tokenize_all(Path(sys.argv[2]))
