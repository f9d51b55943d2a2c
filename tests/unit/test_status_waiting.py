"""Trainings beside the run's own wait for a person: status says with which command they go on."""

from engines import NewContext, embedded_config

from localism import status
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
