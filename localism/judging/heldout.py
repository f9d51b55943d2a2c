"""The held-out prompts of a split, and one student model's answers to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localism.records import Sampling, Split, stable_id
from localism.serving.client import Client, RequestFailed
from localism.store import Store


@dataclass(frozen=True)
class HeldOutItem:
    """A prompt that no model was trained on, with the teacher's response to it."""

    mix_id: str
    """The mix that it was made from."""
    instruction: str
    """What the models are asked."""
    reference: str
    """The teacher's response, which every answer is compared with."""
    skills: tuple[str, ...]
    """Names of the skills that an answer should show."""


def held_out(store: Store, split: Split) -> list[HeldOutItem]:
    """The accepted examples of a split, in the order in which they were planned."""
    rows = store.query(
        """
        SELECT c.mix_id, c.instruction, c.response, list(s.name ORDER BY ms.position) AS skills
        FROM candidate c JOIN mix m USING (mix_id)
        JOIN mix_skill ms USING (mix_id) JOIN skill s USING (skill_id)
        WHERE c.status = 'accepted' AND m.split = ?
        GROUP BY c.mix_id, c.instruction, c.response, m.ordinal ORDER BY m.ordinal
        """,
        [split],
    )
    return [
        HeldOutItem(row["mix_id"], row["instruction"], row["response"], tuple(row["skills"]))
        for row in rows
    ]


def unanswered(store: Store, model_id: str, items: Sequence[HeldOutItem]) -> list[HeldOutItem]:
    """The items that this model has not been asked yet."""
    rows = store.query("SELECT mix_id FROM answer WHERE model_id = ?", [model_id])
    asked = {row["mix_id"] for row in rows}
    return [item for item in items if item.mix_id not in asked]


async def answer_all(
    client: Client,
    store: Store,
    model_id: str,
    split: Split,
    items: Sequence[HeldOutItem],
    sampling: Sampling,
    on_done: Callable[[], None],
) -> None:
    """Ask the model that the engine holds now; one answer row an item, failed calls included."""

    async def work(item: HeldOutItem) -> None:
        row = await _answer(client, item, sampling)
        answer_id = stable_id(model_id, item.mix_id)
        store.add(
            "answer", answer_id=answer_id, model_id=model_id, mix_id=item.mix_id, split=split, **row
        )
        on_done()

    await client.for_each(items, work)


async def _answer(client: Client, item: HeldOutItem, sampling: Sampling) -> dict[str, str | None]:
    """The columns of an answer row that the call decides."""
    conversation = client.conversation()
    try:
        reply = await conversation.say(item.instruction, template="instruction", sampling=sampling)
    except RequestFailed as failed:
        return {"text": None, "finish_reason": "failed", "reason": str(failed), "turn_id": None}
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "reason": None,
        "turn_id": reply.turn_id,
    }
