"""Stage train on real TRL and the embedded student: what comes out, interruptions, refusals."""

import io
import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainings import (
    EPOCHS,
    EXAMPLES,
    STEPS_AN_EPOCH,
    STUDENT,
    example,
    in_subprocess,
    planned,
    recipe,
    rows,
    tensors,
    train_in,
)

from localism.context import Context
from localism.errors import MachineError, StageError
from localism.progress import Progress
from localism.stages import train
from localism.stages.train_child import explain
from localism.store import Store
from localism.training.job import RESUME, Job

pytestmark = pytest.mark.component


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


def test_nothing_is_left_of_the_optimizer_once_training_is_over(finished: tuple[Path, str]) -> None:
    size = sum(path.stat().st_size for path in (finished[0] / "checkpoints").rglob("*"))
    weights = sum(path.stat().st_size for path in finished[0].rglob("model.safetensors"))
    assert not list((finished[0] / "checkpoints").rglob("optimizer*"))
    assert weights <= size < 1.1 * weights


def test_loss_rate_speed_and_memory_are_in_events_and_in_tensorboard(
    finished: tuple[Path, str],
) -> None:
    logged = {
        step["step"]: step
        for row in rows(finished[0], "FROM event WHERE kind = 'train_step'")
        if (step := json.loads(row["detail"]))["step"]
    }
    board = tensorboard(finished[0] / "train/tensorboard")
    assert board.pop("dev/loss").keys() == {STEPS_AN_EPOCH * n for n in (1, 2, 3)}
    names = ("loss", "learning_rate", "tokens_per_second", "memory_gb")
    assert board.keys() == {f"train/{name}" for name in names}
    for name in names:
        values = {step: line[name] for step, line in logged.items()}
        assert board[f"train/{name}"] == pytest.approx(values, rel=1e-5)
    assert 0.1 < logged[1]["memory_gb"] < 20


def tensorboard(folder: Path) -> dict[str, dict[int, float]]:
    """Scalars by name and step, from event files: length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = Event.FromString(data[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += length + 16
    return found


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
    states = (tmp_path / "checkpoints").glob(f"*/{RESUME}/optimizer.pt")
    assert [path.parent.parent.name for path in states] == [f"epoch-0{killed_at // STEPS_AN_EPOCH}"]
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


# ---- refusals ------------------------------------------------------------------------------


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
    error = explain(job, 1, log, {"train.log": len("an earlier attempt\n")})
    assert "micro_batch" in error.fix and "gradient_checkpointing = true" in error.fix
    assert "CUDA out of memory" in error.where and "earlier" not in error.where
    other = explain(job, 1, log, {"train.log": log.stat().st_size})
    assert "exit code 1" in other.problem and str(log) in other.fix
    lost = explain(replace(job, machines=2), 1, log, {"train.log": log.stat().st_size})
    assert "perhaps another machine was lost" in lost.problem and "NCCL_SOCKET" in lost.fix
    killed = explain(job, -9, log, {"train.log": log.stat().st_size})
    assert "killed" in killed.problem and killed.where == str(log)


@pytest.mark.parametrize(
    "words",
    [
        "SafetensorError: Error while serializing: No space left on device (os error 28)",
        "RuntimeError: PytorchStreamWriter failed writing file data/7: file write failed",
    ],
)
def test_a_child_that_met_a_full_disk_says_so(tmp_path: Path, words: str) -> None:
    log = tmp_path / "train.log"
    log.write_text(f"Traceback\n{words}\n")
    full = explain(planned(tmp_path, recipe()), 1, log, {})
    assert full.exit_code == 4 and full.problem.startswith("the disk is full")
