"""Shared by the tests of export: a small corpus with a variant and a set from a file."""

import json
from pathlib import Path
from typing import Any

from localism.config import Config
from localism.store import Store, now
from localism.weights import fingerprint

TEXTS = {
    "m0": ("Write about tea | and rivers.\nTwo lines.", "Tea — \"it\" flows…\n\n| a | b |"),
    "m1": ("Name a river.", "The Rhine."),
    "m2": ("Ask about tea.", "What tea?"),
    "d0": ("Held out?", "Yes, held out."),
}  # fmt: skip
WRITER, OTHER = "f" * 16, "e" * 16


def fill(store: Store, config: Config, *, curated: bool = True) -> None:
    """Three accepted examples for train, one for dev, none for test, and one rejected."""
    store.add("run", run_id="r", name="first", created_at=now(), version="0.1.0", recipe_hash="h1",
              recipe=config.model_dump_json(), rehearsal=True)  # fmt: skip
    for role, path in (("teacher", config.teacher.path), ("prompts", "compact")):
        store.add("asset", asset_id=role, role=role, path=path, fingerprint=f"{role}-print",
                  parameters=None, bytes=None)  # fmt: skip
    _skills(store)
    for ordinal, mix_id in enumerate([*TEXTS, "bad"]):
        split = "dev" if mix_id == "d0" else "train"
        query_type = "q0" if mix_id == "d0" else None  # a column without values in train
        store.add("mix", mix_id=mix_id, ordinal=ordinal, k=2, query_type_id=query_type, split=split)
        for position, skill in enumerate(("tea", "river")):
            store.add("mix_skill", mix_id=mix_id, position=position, skill_id=skill)
        _turn(store, f"t-{mix_id}", WRITER)
        instruction, response = TEXTS.get(mix_id, ("Bad.", "Bad."))
        store.add("candidate", mix_id=mix_id, instruction=instruction, response=response,
                  status="rejected" if mix_id == "bad" else "accepted",
                  reason="too short" if mix_id == "bad" else None, turn_id=f"t-{mix_id}",
                  completion_tokens=9, instruction_tokens=4, response_tokens=8)  # fmt: skip
    store.add("verdict", mix_id="bad", gate="length", passed=False, reason="too short", value=1.0)
    store.add("query_type", query_type_id="q0", name="question", definition=None, ordinal=0)
    _sets(store)
    if curated:
        store.event("stage_finished", "curate", summary="done")


def _skills(store: Store) -> None:
    store.add("seed_example", seed_id="s0", source="seeds.jsonl", ordinal=0, instruction="Tea?")
    for name, cluster, seed in (("tea", "drinks", "s0"), ("river", "places", None)):
        store.add("cluster", cluster_id=cluster, name=cluster, medoid=name, size=1)
        store.add("skill", skill_id=name, name=name, cluster_id=cluster, rare=False, count=1,
                  hdbscan_label=0, strength=1.0)  # fmt: skip
        store.add("skill_label", label_id=name, raw=name, name=name, skill_id=name,
                  source="sdd" if seed else "sda", seed_id=seed)  # fmt: skip


def _turn(store: Store, turn_id: str, model: str) -> None:
    store.add("turn", turn_id=turn_id, parent_id=None, stage="generate", role="teacher",
              template="refine", prompt="p", prompt_hash="ph", model_fingerprint=model,
              sampling="{}", sample=0, text="x", finish_reason="stop", prompt_tokens=1,
              completion_tokens=1, seconds=0.1, finished_at=now())  # fmt: skip


def _sets(store: Store) -> None:
    """other: m0 and m1 by another teacher; short: of other, m1 anew; filed: from a file."""
    _turn(store, "t-other-0", OTHER)
    _turn(store, "t-other-1", OTHER)
    _turn(store, "t-short", WRITER)
    rows: dict[str, list[tuple[Any, ...]]] = {
        "other": [("m0", "Other tea.", "t-other-0"), ("m1", "Other river.", "t-other-1")],
        "short": [("m0", "Other tea.", None), ("m1", "Rhine.", "t-short")],
        "filed": [(None, "From a file.", None)],
    }
    made = {
        "other": ("teacher", "accepted", {"teacher": "/models/Gemma-2-9b"}),
        "short": ("longest", "other", {"n": 2}),
        "filed": ("longest", "/data/private/alpaca.json", {"n": 1}),
    }
    for name, (kind, source, settings) in made.items():
        store.add("training_set", set_name=name, kind=kind, source=source, planned=len(rows[name]),
                  settings=json.dumps(settings))  # fmt: skip
        for ordinal, (mix_id, response, turn_id) in enumerate(rows[name]):
            store.add("set_example", set_name=name, ordinal=ordinal, mix_id=mix_id,
                      skills=["tea", "river"] if mix_id else [], instruction="Ask.",
                      response=response, status="accepted", reason=None,
                      changed=turn_id is not None, turn_id=turn_id)  # fmt: skip


def add_checkpoint(store: Store, run_folder: Path, source: Path, **more: Any) -> Path:
    """A picked checkpoint epoch-02 with the files of a model folder; returns its folder."""
    folder = run_folder / "checkpoints" / "epoch-02"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    row = {"checkpoint_id": "epoch-02", "epoch": 2, "step": 4, "path": "checkpoints/epoch-02",
           "fingerprint": fingerprint(folder), "train_loss": 0.5, "dev_loss": 0.6,
           "picked": True, "tied": False}  # fmt: skip
    store.add("checkpoint", **row | more)
    return folder
