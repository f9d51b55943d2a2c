"""What an export is for: datasets, transformers, TRL and vLLM load it, with no network.

This file is also a program: what must not load TRL into pytest, and what runs in a network
namespace where one is permitted.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import netns
import pytest
from engines import NewContext, embedded_config
from trainings import EXAMPLES, example, recipe

from localism.export.make import Asked, export
from localism.offline import child_environment
from localism.records import Sampling
from localism.serving.server import serve
from localism.store import Store, now

pytestmark = pytest.mark.component

QUESTION = example(3)["instruction"]
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def exported(finished: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and model of a run that was really trained, as `localism export --what all` writes."""
    place = tmp_path_factory.mktemp("exported")
    shutil.copytree(finished[0], place / "run")
    config = recipe()
    with Store(place / "run" / "corpus.duckdb") as store:
        store.add("run", run_id="r", name="small", created_at=now(), version="0",
                  recipe=config.model_dump_json(), recipe_hash="h", rehearsal=True)  # fmt: skip
        store.event("stage_finished", "curate", summary="")
        store.execute("UPDATE checkpoint SET picked = true WHERE epoch = 3")
        asked = Asked(place / "out", what="all", forms=("messages", "prompt-completion"))
        export(store.query, place / "run", config, asked)
    return place / "out"


@pytest.fixture(scope="module")
def loaded(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the libraries made of it, in a process of its own."""
    scratch = tmp_path_factory.mktemp("loaded")
    command = [sys.executable, __file__, str(exported), str(scratch)]
    if netns.reason_not_permitted() is None:
        command = netns.isolated(command)
    environment = child_environment(scratch) | {
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(scratch / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run(command, env=environment, check=True, timeout=400)
    return json.loads((scratch / "facts.json").read_text())


def test_datasets_loads_every_configuration_offline(loaded: dict[str, Any]) -> None:
    assert loaded["configurations"] == {
        "default": {"train": EXAMPLES, "dev": 6, "test": 6},
        "prompt-completion": {"train": EXAMPLES, "dev": 6, "test": 6},
    }
    user, assistant = loaded["first"]["messages"]
    assert (user["content"], assistant["content"]) == tuple(example(0).values())
    assert loaded["first"]["skills"] == [] and loaded["first"]["mix_id"] == "mix-00"


def test_trl_trains_the_exported_model_on_from_where_it_was(
    exported: Path, loaded: dict[str, Any]
) -> None:
    """One step over all its examples: their loss is what training came to, not the base's."""
    log = (exported.parent / "run" / "train" / "log.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in log]
    base, last = lines[0]["dev_loss"], min(line["loss"] for line in lines if "loss" in line)
    assert loaded["trained_steps"] == 1
    assert 0 < loaded["loss"] < (base + last) / 2


def test_vllm_serves_the_exported_model_and_says_what_transformers_says(
    exported: Path, loaded: dict[str, Any], new_context: NewContext
) -> None:
    student = {"path": str(exported / "model"), "dtype": "float32", "max_num_seqs": 4}
    context = new_context(embedded_config(student=student))

    async def ask() -> str:
        async with serve(context, "student", "generate") as client:
            reply = await client.conversation().say(QUESTION, template="x", sampling=GREEDY)
            return reply.text

    text = asyncio.run(ask())
    assert text.strip() and text == loaded["reply"]


# ---- this file as a program ----------------------------------------------------------------


def load(folder: Path, scratch: Path) -> None:
    """Load data and model with each library and write down what came of it."""
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    data, place = str(folder / "data"), str(folder / "model")
    configurations = {
        name: datasets.load_dataset(data, name) for name in datasets.get_dataset_config_names(data)
    }
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    reply = model.generate(**asked, max_new_tokens=GREEDY.max_tokens, do_sample=False)
    start = asked["input_ids"].shape[1]
    settings = SFTConfig(
        output_dir=str(scratch / "trl"), max_steps=1, per_device_train_batch_size=24,
        use_cpu=True, save_strategy="no", report_to=[],
    )  # fmt: skip
    train = configurations["prompt-completion"]["train"]
    trainer = SFTTrainer(model=place, args=settings, train_dataset=train)
    outcome = trainer.train()
    facts = {
        "configurations": {
            name: {split: len(rows) for split, rows in loaded.items()}
            for name, loaded in configurations.items()
        },
        "first": configurations["default"]["train"][0],
        "reply": tokenizer.decode(reply[0, start:], skip_special_tokens=True),
        "trained_steps": outcome.global_step,
        "loss": outcome.training_loss,
    }
    (scratch / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    load(Path(sys.argv[1]), Path(sys.argv[2]))
