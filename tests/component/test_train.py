"""Stage train on real TRL and the embedded student.

Each training is a process of its own that loads TRL for many seconds, so the tests share runs.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
from localism.errors import ConfigError, MachineError, OutOfTime, StageError
from localism.models_toml import validate
from localism.offline import child_environment
from localism.paths import embedded
from localism.progress import Progress
from localism.stages import train
from localism.store import Store
from localism.training.job import Job, settle, whole_checkpoints

pytestmark = pytest.mark.component

STUDENT = embedded("embedded:student")
THINGS = ("soup", "river", "garden", "letter", "window", "market")
EXAMPLES, BATCH, EPOCHS = 24, 4, 3
STEPS_AN_EPOCH = EXAMPLES // BATCH


def recipe(student: str = "embedded:student", **changes: Any) -> Config:
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
            "student": {"path": student},
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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was trained without interruption, and the stage's summary."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train_in(folder, recipe())


# ---- what comes out ------------------------------------------------------------------------


def test_one_whole_checkpoint_an_epoch_is_recorded(finished: tuple[Path, str]) -> None:
    folder, summary = finished
    found = rows(folder, "FROM checkpoint ORDER BY epoch")
    assert [row["checkpoint_id"] for row in found] == ["epoch-01", "epoch-02", "epoch-03"]
    assert [row["step"] for row in found] == [STEPS_AN_EPOCH * n for n in (1, 2, 3)]
    assert [row["path"] for row in found] == [f"checkpoints/epoch-0{n}" for n in (1, 2, 3)]
    assert len({row["fingerprint"] for row in found}) == 3
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "epoch-01",
        "epoch-02",
        "epoch-03",
    ]
    assert summary.startswith(f"3 checkpoints from {EXAMPLES} examples; dev loss ")


def test_only_accepted_examples_of_their_split_are_written(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    lines = (folder / "train/train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "prompt": [{"role": "user", "content": example(index)["instruction"]}],
            "completion": [{"role": "assistant", "content": example(index)["response"]}],
        }
        for index in range(EXAMPLES)
    ]
    assert len((folder / "train/dev.jsonl").read_text().splitlines()) == 6


def test_the_loss_falls_and_every_step_is_an_event(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    found = rows(folder, "FROM checkpoint ORDER BY epoch")
    steps = [
        json.loads(row["detail"]) for row in rows(folder, "FROM event WHERE kind = 'train_step'")
    ]
    steps.sort(key=lambda step: step["step"])
    assert [step["step"] for step in steps] == list(range(EPOCHS * STEPS_AN_EPOCH + 1))
    assert found[-1]["dev_loss"] < found[0]["dev_loss"] < steps[0]["dev_loss"]
    first_epoch = [step["loss"] for step in steps[1 : STEPS_AN_EPOCH + 1]]
    assert found[0]["train_loss"] == pytest.approx(np.mean(first_epoch))
    assert found[-1]["train_loss"] < found[0]["train_loss"]
    rates = [step["learning_rate"] for step in steps[1:]]
    assert max(rates) == pytest.approx(3e-3) and rates[-1] < 1e-4, "cosine to zero"


def test_all_weights_move(finished: tuple[Path, str]) -> None:
    base, trained = tensors(STUDENT), tensors(finished[0] / "checkpoints/epoch-03")
    assert base.keys() == trained.keys()
    still = [name for name in base if np.array_equal(base[name], trained[name])]
    assert still == []


def test_only_the_latest_checkpoint_keeps_its_optimizer(finished: tuple[Path, str]) -> None:
    found = (finished[0] / "checkpoints").glob("*/optimizer.pt")
    assert [path.parent.name for path in found] == ["epoch-03"]


def test_dev_loss_is_the_mean_over_response_tokens(finished: tuple[Path, str]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished[0] / "checkpoints/epoch-01"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses: list[float] = []
    for index in range(EXAMPLES, EXAMPLES + 6):
        texts = example(index)
        user = {"role": "user", "content": texts["instruction"]}
        prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, tokenize=False)
        start = len(tokenizer.encode(prompt))
        ids = tokenizer.encode(prompt + texts["response"] + tokenizer.eos_token)
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        losses += [-logprobs[at - 1, ids[at]].item() for at in range(start, len(ids))]
    recorded = json.loads((folder / "checkpoint.json").read_text())["dev_loss"]
    assert recorded == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_checkpoint_answers_and_stops_in_transformers(finished: tuple[Path, str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished[0] / "checkpoints/epoch-03"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": example(0)["instruction"]}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    reply = model.generate(**asked, max_new_tokens=60, do_sample=False)[0]
    text = tokenizer.decode(reply[asked["input_ids"].shape[1] :])
    assert text.startswith("Here is the ")
    assert text.endswith(tokenizer.eos_token), "it stops by itself"


def test_a_second_call_trains_nothing_and_says_the_same(finished: tuple[Path, str]) -> None:
    folder, summary = finished
    started = time.monotonic()
    assert train_in(folder, recipe()) == summary
    assert time.monotonic() - started < 5
    assert rows(folder, "SELECT count(*) AS n FROM checkpoint") == [{"n": 3}]


# ---- interruption --------------------------------------------------------------------------


def test_training_killed_in_an_epoch_and_resumed_gives_the_same_weights(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    parent = in_subprocess("train", str(tmp_path))
    child = wait_for(lambda: children(parent.pid), 120)[0]
    log = tmp_path / "train/log.jsonl"
    in_second_epoch = STEPS_AN_EPOCH + 2
    wait_for(lambda: log.exists() and log.read_text().count("\n") > in_second_epoch, 240)
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(child), 10)
    killed_at = log.read_text().count("\n") - 1
    assert STEPS_AN_EPOCH < killed_at < EPOCHS * STEPS_AN_EPOCH
    torn = tmp_path / "checkpoints/checkpoint-7"
    torn.mkdir()

    assert train_in(tmp_path, recipe()) == finished[1]
    assert Job.read(tmp_path / "train/job.json").resume_from, "it did not start over"
    assert not torn.exists()
    columns = "checkpoint_id, epoch, step, fingerprint, train_loss, dev_loss"
    checkpoints = f"SELECT {columns} FROM checkpoint ORDER BY epoch"
    assert rows(tmp_path, checkpoints) == rows(finished[0], checkpoints)
    losses = (
        "SELECT event_id, detail->>'loss' AS loss, detail->>'tokens' AS tokens "
        "FROM event WHERE kind = 'train_step' ORDER BY event_id"
    )
    assert rows(tmp_path, losses) == rows(finished[0], losses)


def test_out_of_time_ends_after_an_epoch_and_the_same_call_goes_on(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    with opened(tmp_path, recipe()) as context:
        # Over long before the first epoch is; that one is finished all the same. The steps of the
        # miniature are so short that a second one may be over before it is noticed.
        with pytest.raises(OutOfTime, match="[12] of 3 epochs"):
            train.run(replace(context, deadline=time.monotonic() + 0.5))
        before = len(context.store.query("FROM checkpoint"))
        assert before in (1, 2)
        train.run(context)
    assert Job.read(tmp_path / "train/job.json").resume_from, "it did not start over"
    columns = "SELECT epoch, step, fingerprint FROM checkpoint ORDER BY epoch"
    assert rows(tmp_path, columns) == rows(finished[0], columns)


def test_ctrl_c_ends_the_child_within_seconds(tmp_path: Path) -> None:
    parent = in_subprocess("train", str(tmp_path))
    child = wait_for(lambda: children(parent.pid), 120)[0]
    parent.send_signal(signal.SIGINT)
    assert parent.wait(15) != 0
    assert not is_alive(child)


def wait_for(condition: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


# ---- which tokens are trained, and other shapes of the same job ---------------------------------


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
        train.write_data(context)
        job = replace(train.plan(context), **changes)
    settle(job)
    job.write(folder / "train/job.json")
    return job


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The first examples as the trainer sees them, by kind of job."""
    folder = tmp_path_factory.mktemp("tokenized")
    bare = without_template(folder / "bare-student")
    endless = without_template(folder / "endless-student")
    template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    (endless / "chat_template.jinja").write_text(template)
    planned(folder / "own", recipe())
    planned(folder / "alpaca", recipe(str(bare)))
    planned(folder / "short", recipe(), max_length=16)
    planned(folder / "endless", recipe(str(endless)))
    assert in_subprocess("tokenize", str(folder)).wait(300) == 0
    return json.loads((folder / "tokenized.json").read_text())


@pytest.mark.parametrize("kind", ["own", "alpaca"])
def test_the_loss_is_on_every_token_of_the_response_and_on_no_other(
    tokenized: dict[str, Any], kind: str
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(STUDENT / "tokenizer.json"))
    end = json.loads((STUDENT / "tokenizer_config.json").read_text())["eos_token"]
    seen = tokenized[kind]
    for index, (ids, labels, mask) in enumerate(
        zip(seen["input_ids"], seen["labels"], seen["attention_mask"], strict=True)
    ):
        length = sum(mask)
        assert set(labels[length:]) <= {-100}, "padding has no loss"
        start = next(at for at, label in enumerate(labels) if label != -100)
        assert labels[start:length] == ids[start:length], "no gap within the response"
        response = tokenizer.decode(ids[start:length], skip_special_tokens=False)
        texts = example(index)
        assert response.rstrip("\n") == texts["response"] + end
        prompt = tokenizer.decode(ids[:start], skip_special_tokens=False)
        assert texts["instruction"] in prompt and "Here is" not in prompt


def test_examples_that_are_too_long_are_cut_and_counted(tokenized: dict[str, Any]) -> None:
    assert tokenized["own"]["counts"] == {"examples": EXAMPLES, "dropped": 0, "cut": 0}
    counts = tokenized["short"]["counts"]
    assert counts["cut"] > 0 and counts["examples"] + counts["dropped"] == EXAMPLES
    assert max(len(ids) for ids in tokenized["short"]["input_ids"]) == 16


def test_a_template_without_an_end_token_is_refused(tokenized: dict[str, Any]) -> None:
    assert tokenized["endless"]["refused"].startswith("the student's chat template writes no end")


def test_a_base_without_chat_template_gets_one_with_its_checkpoints(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    bare = without_template(tmp_path / "student")
    with opened(tmp_path / "run", recipe(str(bare), epochs=1)) as context:
        assert train.chat_template_file(context) == train.TEMPLATE
        train.run(context)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run/checkpoints/epoch-01")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "A person wrote the request below. Write a reply that does what it asks.\n\n"
        f"### Request\nHi\n\n### Reply\nYes.{tokenizer.eos_token}\n\n"
    )
    with opened(tmp_path / "other", recipe()) as context:
        assert train.chat_template_file(context) is None, "the student has its own"


def test_two_processes_train_like_one(finished: tuple[Path, str], tmp_path: Path) -> None:
    job = planned(tmp_path, recipe(), processes=2, micro_batch=1, accumulation=2)
    command = [sys.executable, "-m", "localism.training.sft", str(tmp_path / "train/job.json")]
    environment = child_environment(tmp_path) | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=400)
    for ours, theirs in zip(
        whole_checkpoints(Path(job.checkpoints)),
        whole_checkpoints(finished[0] / "checkpoints"),
        strict=True,
    ):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.dev_loss == pytest.approx(theirs.dev_loss, rel=1e-3)


# ---- refusals ------------------------------------------------------------------------------


def test_a_batch_that_the_devices_cannot_share_is_refused_with_a_size_that_works() -> None:
    assert train.accumulation_steps(recipe(batch=64, micro_batch=8), 4) == 2
    with pytest.raises(ConfigError) as refused:
        train.accumulation_steps(recipe(batch=64, micro_batch=16), 8)
    assert "[train].batch = 64" in refused.value.where
    assert "micro_batch = 8" in refused.value.fix


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="checkpoints need") as refused:
        train_in(tmp_path, recipe(epochs=100_000_000))
    assert "free" in refused.value.fix
    assert not (tmp_path / "logs/train.log").exists(), "nothing was started"


def test_no_accepted_example_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        context = Context(recipe(), store, tmp_path, Progress(io.StringIO(), plain=True))
        with pytest.raises(StageError, match="nothing to train on"):
            train.run(context)


def test_checkpoints_of_another_recipe_are_not_taken_for_this_one(
    finished: tuple[Path, str],
) -> None:
    with pytest.raises(StageError, match="other data, another base model or other settings"):
        train_in(finished[0], recipe(learning_rate=1e-3))


def test_a_loss_that_is_no_number_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the loss is (nan|inf)") as refused:
        train_in(tmp_path, recipe(learning_rate=1e30))
    assert "smaller learning_rate" in refused.value.fix


def test_a_child_that_ran_out_of_memory_names_the_dials(tmp_path: Path) -> None:
    job = planned(tmp_path, recipe())
    log = tmp_path / "train.log"
    log.write_text("an earlier attempt\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n")
    error = train.explain(job, 1, log, start=len("an earlier attempt\n"))
    assert "micro_batch" in error.fix and "gradient_checkpointing = true" in error.fix
    assert "CUDA out of memory" in error.where and "earlier" not in error.where
    other = train.explain(job, 1, log, start=log.stat().st_size)
    assert "exit code 1" in other.problem and str(log) in other.fix


# ---- this file as a program ----------------------------------------------------------------


def tokenize_all(folder: Path) -> None:
    """Build a trainer for each job in the folder and write what it would train on."""
    from localism.training.sft import build, data_counts

    seen: dict[str, Any] = {}
    for path in sorted(folder.glob("*/train/job.json")):
        job, kind = Job.read(path), path.parent.parent.name
        try:
            trainer = build(replace(job, parent=os.getpid()))
        except ConfigError as error:
            seen[kind] = {"refused": error.problem}
            continue
        batch = trainer.data_collator([trainer.train_dataset[at] for at in range(3)])
        seen[kind] = {name: tensor.tolist() for name, tensor in batch.items()}
        seen[kind]["counts"] = data_counts(job, trainer)
    (folder / "tokenized.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train_in(Path(sys.argv[2]), recipe())
    else:
        tokenize_all(Path(sys.argv[2]))
