"""What a training derives from model, data and machine; when a loss is hopeless; what is kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, embedded_config

from localism.config import Config
from localism.context import Context
from localism.errors import ConfigError, MachineError, StageError
from localism.gpus import Gpus
from localism.paths import embedded
from localism.stages import train, train_plan
from localism.stages.pick_keep import discard
from localism.stages.train_plan import (
    Shape,
    accumulation_steps,
    check_disk,
    derive_epochs,
    derive_learning_rate,
    derive_micro_batch,
    largest_divisor,
    passing_bytes,
    resume_bytes,
    shape_of,
    state_bytes,
)
from localism.training.job import RESUME, Checkpoint, Job, whole_checkpoints
from localism.training.recorder import check_loss
from localism.training.sets import main_training

STUDENT = embedded("embedded:student")
EIGHT_BILLION = Shape("llama", "bfloat16", 8192, 32, 4096, 14336, 128_256)
GIGABYTE = 10**9


def config(**section: Any) -> Config:
    return embedded_config(train=section)


@pytest.mark.parametrize(
    ("family", "rate"),
    [("llama", 2e-5), ("mistral", 2e-6), ("gemma2", 1e-6), ("gemma3_text", 1e-6), ("qwen3", 2e-5)],
)
def test_the_learning_rate_is_that_of_table_9_for_the_family(family: str, rate: float) -> None:
    full, lora = config().train, config(method="lora").train
    assert derive_learning_rate(full, family)[0] == rate
    assert derive_learning_rate(lora, family)[0] == pytest.approx(10 * rate)
    assert ("not in table 9" in derive_learning_rate(full, family)[1]) == (family == "qwen3")


def test_what_the_user_gave_is_never_derived() -> None:
    given = config(learning_rate=5e-4, epochs=7, micro_batch=3, batch=6).train
    assert derive_learning_rate(given, "mistral") == (5e-4, "")
    assert derive_epochs(given, 1_000_000) == (7, "")
    asked = config(learning_rate=5e-4, epochs=7, micro_batch=3, batch=6)
    assert derive_micro_batch(asked, STUDENT, EIGHT_BILLION, Gpus(4, 1)) == (3, "")


def test_large_sets_are_passed_over_three_times_and_others_fifteen() -> None:
    assert derive_epochs(config().train, 4_000)[0] == 15
    assert derive_epochs(config().train, 52_000)[0] == 3


def test_the_micro_batch_is_what_fits_into_the_memory_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("localism.weights.parameter_count", lambda _: 8 * 10**9)

    def found(gpus: int, gigabytes: int, **section: Any) -> int:
        memory = Gpus(gpus, gigabytes * GIGABYTE)
        return derive_micro_batch(config(**section), STUDENT, EIGHT_BILLION, memory)[0]

    # 64 GB of each are used, 32 hold the state and 6.4 what passes through: 11 of 2.3 GB fit.
    assert found(4, 80) == 8
    assert found(4, 140) > found(4, 80)
    assert found(4, 80, max_length=1024) > found(4, 80)
    assert found(4, 80, gradient_checkpointing=False) == 1, "a little less than one fits"
    assert 64 // 4 % found(4, 140, max_length=256) == 0, "it divides each GPU's share of the batch"
    assert found(1, 80, method="lora") >= 4
    with pytest.raises(MachineError, match="146.1 GB on each GPU for weights") as refused:
        found(1, 80)
    assert "[train].method = 'lora'" in refused.value.fix


def test_on_a_cpu_the_micro_batch_is_at_most_eight_and_divides_the_batch() -> None:
    cpu = Gpus(0, None)
    for batch, expected in ((64, 8), (12, 6), (7, 7), (11, 1)):
        assert derive_micro_batch(config(batch=batch), STUDENT, EIGHT_BILLION, cpu)[0] == expected
    assert largest_divisor(60, 7) == 6


def test_state_is_sixteen_bytes_a_parameter_or_the_base_alone() -> None:
    assert state_bytes("full", 1_000, 1, EIGHT_BILLION) == 16_000
    assert state_bytes("full", 1_000, 4, EIGHT_BILLION) == 4_000
    assert state_bytes("lora", 1_000, 1, EIGHT_BILLION) == 2_000
    assert state_bytes("lora", 1_000, 1, EIGHT_BILLION._replace(dtype="float32")) == 4_000


def test_a_pass_takes_bf16_copies_on_one_gpu_and_gathered_blocks_on_several() -> None:
    parameters, output_layer = 8 * 10**9, 128_256 * 4096
    alone = passing_bytes("full", parameters, 1, EIGHT_BILLION)
    assert alone == 2 * parameters + 4 * output_layer
    sharded = [passing_bytes("full", parameters, n, EIGHT_BILLION) for n in (2, 16)]
    assert sharded[0] == sharded[1] == pytest.approx(6.4e9, rel=0.01), "however many there are"
    assert passing_bytes("lora", parameters, 1, EIGHT_BILLION) == 0


def test_a_batch_that_the_devices_cannot_share_is_refused_with_a_size_that_works() -> None:
    assert accumulation_steps(64, 4, 8) == 2
    with pytest.raises(ConfigError) as refused:
        accumulation_steps(64, 8, 16)
    assert "[train].batch = 64" in refused.value.where
    assert "micro_batch = 8" in refused.value.fix


# ---- the plan ------------------------------------------------------------------------------


def planned(context: Context) -> train_plan.Plan:
    training = main_training(context.config)
    work = train.work_folder(context, training)
    for split in ("train", "dev"):
        (work / f"{split}.jsonl").write_text("{}\n")
    return train_plan.plan(context, training, work, 1)


def test_a_plan_says_what_it_derived_and_why(new_context: NewContext) -> None:
    job, derived = planned(new_context(config(batch=16)))
    assert derived == (
        "full fine-tuning, 15 epochs (paper C.1), learning rate 2e-05 (table 9 for llama),"
        " batch 16 = 1 CPU process x 8 x 2"
    )
    assert (job.epochs, job.learning_rate, job.micro_batch, job.accumulation) == (15, 2e-5, 8, 2)
    assert job.weights_dtype == "bfloat16", "the student's own, which the engine loads"


def test_a_job_comes_back_from_its_file_as_it_was(new_context: NewContext, tmp_path: Path) -> None:
    job = planned(new_context(config(method="lora", lora_targets=("q_proj",)))).job
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_a_training_on_several_gpus_is_not_continued_on_one_nor_the_other_way_round(
    new_context: NewContext,
) -> None:
    job = planned(new_context(config())).job
    last = Checkpoint(Path(job.checkpoints) / "epoch-02", 2, 8, 1.0, None)
    (last.folder / RESUME).mkdir(parents=True)
    train._check_resumable(job, last)
    with pytest.raises(StageError, match="epochs 1 to 2 were trained on one GPU, and on several"):
        train._check_resumable(replace(job, sharded=True), last)
    (last.folder / RESUME / "pytorch_model_fsdp.bin").touch()
    train._check_resumable(replace(job, sharded=True), last)
    with pytest.raises(
        StageError, match="trained on several GPUs, and on one GPU they can't"
    ) as refused:
        train._check_resumable(job, last)
    assert "train on several GPUs again" in refused.value.fix


def test_lora_on_layers_that_the_student_does_not_have_is_refused(new_context: NewContext) -> None:
    with pytest.raises(ConfigError, match="no layer 'no_such_layer'") as refused:
        planned(new_context(config(method="lora", lora_targets=("q_proj", "no_such_layer"))))
    assert "down_proj" in refused.value.fix


def test_the_disk_needs_weights_of_each_epoch_and_the_state_of_two(
    new_context: NewContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = planned(new_context(config(epochs=10))).job
    Path(job.checkpoints).mkdir(parents=True)
    parameters = train_plan.weights.parameter_count(STUDENT)
    # bfloat16 checkpoints; float32 weights and AdamW's two to resume from.
    assert resume_bytes("full", "bfloat16", False) == 12
    assert resume_bytes("full", "float32", False) == 8, "the checkpoint's file serves"
    assert resume_bytes("full", "float32", True) == 12, "FSDP writes one of its own"
    assert resume_bytes("lora", "bfloat16", False) == 0
    needed = parameters * (10 * 2 + 2 * 12)

    class Usage:
        free = needed

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    check_disk(job, 0)
    Usage.free = needed - 1
    with pytest.raises(MachineError, match="10 checkpoints need"):
        check_disk(job, 0)
    check_disk(job, 5)


def test_the_shape_of_a_model_is_read_from_its_configuration(tmp_path: Path) -> None:
    assert shape_of(STUDENT) == Shape("llama", "bfloat16", 1024, 4, 192, 512, 2392)
    nested = {"model_type": "gemma3", "text_config": {"hidden_size": 8, "num_hidden_layers": 2}}
    (tmp_path / "config.json").write_text(json.dumps(nested))
    assert shape_of(tmp_path) == Shape("gemma3", "float32", None, 2, 8, 32, 0)


# ---- a loss that runs away ---------------------------------------------------------------------


def test_a_loss_that_is_no_number_or_runs_away_stops_the_training() -> None:
    with pytest.raises(StageError, match="the loss is nan at step 2; checkpoints before it"):
        check_loss([2.0, float("nan")], 2, 1e-3)
    climbing = [2.0, 2.1, 2.2, *[3.5] * 10]
    with pytest.raises(StageError, match="the loss runs away: 2.00 at first, 3.50 at step 13"):
        check_loss(climbing, 13, 1e-3)


def test_a_loss_that_jumps_for_a_few_steps_or_falls_is_left_alone() -> None:
    check_loss([2.0, 2.1, 2.2, *[9.0, *[2.0] * 9]], 13, 1e-3)
    check_loss([13.0, 13.5, *[9.0] * 30], 32, 1e-3)
    check_loss([2.0] * 3, 3, 1e-3)


# ---- what is kept after the pick -----------------------------------------------------------


@pytest.fixture
def picked(new_context: NewContext) -> Context:
    """Four checkpoints, of which the third is picked and the fourth tied with it."""
    context = new_context(config(keep="best"))
    for epoch in (1, 2, 3, 4):
        path = f"checkpoints/epoch-0{epoch}"
        folder = context.folder / path
        (folder / "adapter").mkdir(parents=True)
        facts = {"epoch": epoch, "step": epoch, "train_loss": 1.0, "dev_loss": None}
        (folder / "checkpoint.json").write_text(json.dumps(facts))
        (folder / "model.safetensors").write_bytes(b"weights")
        context.store.add(
            "checkpoint", checkpoint_id=f"epoch-0{epoch}", epoch=epoch, step=epoch, path=path,
            fingerprint=str(epoch), picked=epoch == 3, tied=epoch == 4,
        )  # fmt: skip
    return context


def with_keep(context: Context, keep: str) -> Context:
    return replace(context, config=config(keep=keep))


def with_weights(context: Context) -> list[str]:
    return sorted(path.parent.name for path in context.folder.rglob("model.safetensors"))


def test_the_pick_keeps_its_weights_and_so_does_what_was_asked_for(picked: Context) -> None:
    training = main_training(picked.config)
    assert discard(with_keep(picked, "all"), training) == 0
    assert len(with_weights(picked)) == 4
    assert discard(with_keep(picked, "tied"), training) == 2
    assert with_weights(picked) == ["epoch-03", "epoch-04"]
    assert discard(with_keep(picked, "best"), training) == 1
    assert with_weights(picked) == ["epoch-03"]
    assert discard(with_keep(picked, "best"), training) == 0
    rows = picked.store.query("SELECT path FROM checkpoint ORDER BY epoch")
    assert [row["path"] for row in rows] == [
        "removed",
        "removed",
        "checkpoints/epoch-03",
        "removed",
    ]
    assert not list(picked.folder.glob("checkpoints/epoch-01/adapter"))


def test_train_still_knows_the_epochs_whose_weights_are_gone(picked: Context) -> None:
    discard(picked, main_training(picked.config))
    assert [c.epoch for c in whole_checkpoints(picked.folder / "checkpoints")] == [1, 2, 3, 4]


def test_nothing_is_removed_before_there_is_a_pick(picked: Context) -> None:
    picked.store.execute("UPDATE checkpoint SET picked = false")
    assert discard(picked, main_training(picked.config)) == 0
    assert len(with_weights(picked)) == 4
