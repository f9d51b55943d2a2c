"""The same training over several processes, sharded, and as LoRA."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trainings
from trainings import (
    EXAMPLES,
    STUDENT,
    planned,
    recipe,
    rows,
    tensors,
    train_in,
)

from localism.export.make import Asked, export
from localism.offline import child_environment
from localism.store import Store, now
from localism.training.job import RESUME, Job, settle, whole_checkpoints

pytestmark = pytest.mark.component


def test_two_processes_train_like_one(finished: tuple[Path, str], tmp_path: Path) -> None:
    job = planned(tmp_path, recipe(), processes=2, micro_batch=1, accumulation=2)
    command = [sys.executable, "-m", "localism.training.sft", str(tmp_path / "train/job.json")]
    environment = child_environment(tmp_path) | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=400)
    assert_like(job, finished[0])


def test_sharded_training_that_is_resumed_gives_the_loss_of_one_process(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    """FSDP2 over two processes; the weights in bfloat16, what resumes them in float32."""
    job = planned(
        tmp_path, recipe(dtype="bfloat16"), processes=2, micro_batch=1, accumulation=2, sharded=True
    )
    sharded(tmp_path, "once")
    (only,) = whole_checkpoints(Path(job.checkpoints))
    state = settle(job)
    assert state == only
    replace(job, resume_from=str(only.folder / RESUME)).write(tmp_path / "train/job.json")
    sharded(tmp_path, "on")
    assert_like(job, finished[0])
    ours, theirs = (tensors(f / "checkpoints/epoch-03") for f in (tmp_path, finished[0]))
    for name, tensor in theirs.items():
        np.testing.assert_allclose(ours[name], tensor, rtol=2**-7, atol=1e-4)


def sharded(folder: Path, how: str) -> None:
    """Both processes of a job, each of them this file as a program."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launch, trainings.__file__, f"sharded-{how}", str(folder / "train/job.json")]
    environment = child_environment(folder) | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=400)


def assert_like(job: Job, folder: Path) -> None:
    for ours, theirs in zip(
        whole_checkpoints(Path(job.checkpoints)),
        whole_checkpoints(folder / "checkpoints"),
        strict=True,
    ):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.dev_loss == pytest.approx(theirs.dev_loss, rel=1e-3)


# ---- LoRA ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA on packed rows, with checkpoints in the base's bfloat16."""
    folder = tmp_path_factory.mktemp("adapted")
    changes = {"method": "lora", "packing": True, "max_length": 128, "batch": 2, "micro_batch": 2}
    train_in(folder, recipe(dtype="auto", learning_rate=2e-2, **changes))
    return folder


def test_lora_learns_and_says_how_rows_were_packed(adapted: Path) -> None:
    found = rows(adapted, "FROM checkpoint ORDER BY epoch")
    assert found[-1]["dev_loss"] < found[0]["dev_loss"]
    begin = json.loads((adapted / "train/log.jsonl").read_text().splitlines()[0])
    assert begin["rows"] < begin["examples"] == EXAMPLES
    assert begin["attention"] == "sdpa (on the CPU)"
    (recipe_event,) = rows(adapted, "FROM event WHERE kind = 'recipe'")
    assert "lora fine-tuning, 3 epochs, learning rate 0.02" in recipe_event["detail"]


def test_a_lora_checkpoint_is_the_base_with_its_adapter_merged(adapted: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    checkpoint = adapted / "checkpoints/epoch-03"
    base = AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, checkpoint / "adapter").merge_and_unload()
    expected = merged.state_dict()
    ours, before = tensors(checkpoint), tensors(STUDENT)
    assert ours.keys() == before.keys()
    for name, tensor in ours.items():
        rounded = expected[name].bfloat16().float().numpy()
        np.testing.assert_allclose(tensor, rounded, rtol=2**-7, atol=1e-6)
    moved = {name for name in ours if not np.array_equal(ours[name], before[name])}
    assert moved == {name for name in ours if "_proj" in name}


def test_an_exported_lora_run_is_one_merged_model(adapted: Path, tmp_path: Path) -> None:
    config = recipe(dtype="auto", method="lora")
    with Store(adapted / "corpus.duckdb") as store:
        store.add("run", run_id="r", name="adapted", created_at=now(), version="0",
                  recipe=config.model_dump_json(), recipe_hash="h", rehearsal=True)  # fmt: skip
        asked = Asked(tmp_path / "out", what="model", checkpoint="epoch-03")
        export(store.query, adapted, config, asked)
    names = {path.name for path in (tmp_path / "out").rglob("*")}
    assert "config.json" in names and not any(name.startswith("adapter") for name in names)
    ours, merged = tensors(tmp_path / "out"), tensors(adapted / "checkpoints/epoch-03")
    assert ours.keys() == merged.keys()
    assert all(np.array_equal(ours[name], merged[name]) for name in merged)
    assert "merged into the base" in (tmp_path / "out/README.md").read_text()


def test_a_checkpoint_is_stored_in_the_precision_that_the_engine_loads(
    adapted: Path, finished: tuple[Path, str]
) -> None:
    small, large = (f / "checkpoints/epoch-03" for f in (adapted, finished[0]))
    assert json.loads((small / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((large / "config.json").read_text())["dtype"] == "float32"
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (small, large)]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.01)
