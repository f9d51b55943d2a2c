"""Status: trainings that wait for a person; a screen that fits; what the air gap refused."""

from pathlib import Path
from typing import Any

import pytest
from engines import NewContext, behind_endpoints, embedded_config

from localism import recipe, status
from localism.config import Config
from localism.context import Context
from localism.records import STAGES


def trained(context: Context, name: str, set_name: str, seed: int, picked: bool) -> None:
    context.store.add("training", name=name, set_name=set_name, seed=seed)
    context.store.add(
        "checkpoint", checkpoint_id=f"{name}/epoch-01", training=name, epoch=1, step=1,
        path="p", fingerprint="f", picked=picked,
    )  # fmt: skip


def test_a_training_that_nobody_picked_from_is_named_with_its_command(
    new_context: NewContext,
) -> None:
    context = new_context(embedded_config())
    for split in ("dev", "test"):
        mix = {"mix_id": split, "ordinal": 0, "k": 2, "query_type_id": None, "split": split}
        context.store.add("mix", **mix)
        texts = {"instruction": "i", "response": "r", "reason": None, "turn_id": None}
        context.store.add("candidate", mix_id=split, status="accepted", **texts)
    trained(context, "main", "accepted", 0, False)
    trained(context, "brevity-20.seed1", "brevity-20", 1, False)
    trained(context, "junk-20", "junk-20", 0, True)
    answer = {"mix_id": "dev", "split": "dev", "text": None, "finish_reason": "failed"}
    answer |= {"reason": "r", "turn_id": None, "model_id": "junk-20/epoch-01"}
    context.store.add("answer", answer_id="a", **answer)
    context.store.close()
    facts = status.facts(context.folder, STAGES)
    run = context.folder.name
    assert [(row["stage"], row["command"]) for row in facts["waiting"]] == [
        ("pick", f"localism pick --run {run} --on brevity-20 --seed 1"),
        ("evaluate", f"localism evaluate --run {run} --on junk-20"),
    ]
    assert f"junk-20 waits for stage evaluate: localism evaluate --run {run} --on junk-20" in (
        status.render(facts)
    )


# ---- the screen ----------------------------------------------------------------------------

FACTS: dict[str, Any] = {
    "run": "runs/first",
    "stages": [
        {"stage": stage, "state": state, "summary": f"{stage} came to 1,234 of it; " + 9 * "more "}
        for stage, state in zip(STAGES, ["done"] * 6 + ["under way"] + ["to do"] * 2, strict=True)
    ],
    "books": [
        {"stage": f"{stage}{training}", "planned": 320, "accepted": 319 - pending, "rejected": 0,
         "failed": 1, "pending": pending}
        for training in ("", " brevity-20.seed1")
        for stage, pending in (("pick/answers", 0), ("pick/judgments", 7), ("evaluate/answers", 60))
    ],
    "tokens": [{"stage": stage, "role": "teacher", "calls": 1_380} for stage in STAGES],
    "carried_over": [{"parent": "zero", "calls": 1}],
    "waiting": [
        {"training": "k-1", "stage": "pick", "command": f"localism pick --on {70 * 'k'}"},
    ],
    "endpoints": [
        {"role": "teacher", "url": f"http://node{number}:8000/v1", "works": number > 1,
         "since": "2026-11-21T16:20:01", "problem": "Connection refused, and " + 9 * "more "}
        for number in range(8)
    ],
    "engines": [
        {"role": "judge", "is_external": False, "url": "u", "age_seconds": 99,
         "line": "silent for 90 s, counters stand still, restarted in 30 s"}
    ],
    "refused_connections": 3,
    "allowed_hosts": [f"node{number}" for number in range(30)],
}  # fmt: skip


def test_every_line_of_the_status_fits_the_terminal_but_for_commands_to_paste() -> None:
    for width in (60, 80):
        lines = status.render(FACTS, width).splitlines()
        assert [line for line in lines if len(line) > width] == [
            f"  {FACTS['waiting'][0]['command']}"
        ]
    assert "more more" in status.render(FACTS, 80)  # nothing is left out


@pytest.mark.parametrize("height", [16, 23, 40, 60])
def test_a_low_screen_keeps_what_is_worked_on_and_what_is_wrong(height: int) -> None:
    lines = status.render(FACTS, 80, height).splitlines()
    assert len(lines) + (len(FACTS["waiting"][0]["command"]) > 78) <= height
    text = "\n".join(lines)
    assert "pick       under way" in text and "engine judge: silent for 90 s" in text
    assert "http://node0:8000/v1  away since" in text and "k-1 waits for stage pick" in text
    assert "3 connections refused" in text
    assert ("pick/judgments" in text) == (height > 16)


def test_a_screen_that_is_too_low_even_so_says_how_much_is_missing() -> None:
    lines = status.render(FACTS, 80, 8).splitlines()
    assert len(lines) == 8 and "under way" in lines[2] and lines[-1].endswith("more lines")


# ---- the air gap ---------------------------------------------------------------------------

URLS = ("http://node2:8000/v1", "http://node2:8001/v1", "https://10.1.2.3/v1")
CASES = [
    (embedded_config(), []),
    (embedded_config(**behind_endpoints("teacher", URLS, Path("key"))), ["10.1.2.3", "node2"]),
    (embedded_config(train={"rendezvous": "node1:29400"}), ["node1"]),
]


@pytest.mark.parametrize(("config", "hosts"), CASES)
def test_status_names_every_host_of_the_configuration_and_no_other(
    config: Config, hosts: list[str], tmp_path: Path
) -> None:
    recipe.write_recipe(tmp_path, Path("models.toml"), (), config)
    (tmp_path / "egress.jsonl").write_text('{"target": ["a"]}\n{"target": ["b"]}\n')
    facts = status.facts(tmp_path, STAGES)
    assert (facts["allowed_hosts"], facts["refused_connections"]) == (hosts, 2)
    said = ", ".join(hosts) or "nothing"
    assert status.render(facts).splitlines()[-2:] == [
        "2 connections refused by the air gap",
        f"allowed beside this machine: {said}",
    ]


def test_a_recipe_that_cannot_be_read_leaves_the_rest_of_the_status(tmp_path: Path) -> None:
    (tmp_path / recipe.RECIPE).write_text("{}")
    facts = status.facts(tmp_path, STAGES)
    assert facts["allowed_hosts"] is None
    assert status.render(facts).endswith("allowed beside this machine: (recipe.json can't be read)")


def test_each_server_has_one_line_with_its_heartbeat_or_why_it_is_away(tmp_path: Path) -> None:
    urls = ("http://10.1.2.3:8000/v1", "http://node2:8000/v1")
    facts = status.facts(tmp_path / "nothing", STAGES)
    beat = {"role": "teacher", "is_external": True, "age_seconds": 1}
    facts["engines"] = [
        {**beat, "url": urls[0], "line": "alive, 812 tok/s, last answer 2 s ago"},
        {**beat, "url": urls[1], "line": "set aside until it answers again"},
    ]
    away = {"works": False, "since": "2026-11-21T16:20:01", "problem": "Connection refused"}
    facts["endpoints"] = [
        {"role": "teacher", "url": urls[0], "works": True, "since": None, "problem": None},
        {"role": "teacher", "url": urls[1], **away},
    ]
    lines = status.render(facts).splitlines()
    assert [line for line in lines if "8000" in line] == [
        f"  teacher  {urls[0]}  alive, 812 tok/s, last answer 2 s ago",
        f"  teacher  {urls[1]}  away since 16:20:01: Connection refused",
    ]
