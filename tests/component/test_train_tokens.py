"""Which tokens are trained, packed or not, and that any engine asks for the same ones.

The labels are those of the batches that TRL's collator makes, by the embedded student's tokenizer.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from trainings import (
    BATCH,
    EXAMPLES,
    STUDENT,
    example,
    in_subprocess,
    opened,
    planned,
    recipe,
    without_template,
)

from localism.context import Context
from localism.records import Sampling
from localism.serving.server import serve
from localism.stages import train
from localism.stages.train_plan import TEMPLATE, chat_template_file

pytestmark = pytest.mark.component


CHATTY = (
    "{% for m in messages %}<|{{ m['role'] }}|>\\n{{ m['content'] }}<|end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\\n{% endif %}"
)
ENDLESS = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
TWO_FACED = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>?{% endif %}"
)


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Batches as the trainer makes them, by kind of job."""
    folder = tmp_path_factory.mktemp("tokenized")
    bare = without_template(folder / "bare-student")
    planned(folder / "own", recipe())
    planned(folder / "alpaca", recipe(str(bare)))
    planned(folder / "packed", recipe(packing=True, max_length=128))
    planned(folder / "short", recipe(), max_length=16)
    for kind, template in (("chatty", CHATTY), ("endless", ENDLESS), ("two-faced", TWO_FACED)):
        student = without_template(folder / f"{kind}-student")
        (student / "chat_template.jinja").write_text(template)
        planned(folder / kind, recipe(str(student)))
    assert in_subprocess("tokenize", str(folder)).wait(300) == 0
    return json.loads((folder / "tokenized.json").read_text())


@pytest.mark.parametrize("kind", ["own", "alpaca", "chatty", "packed"])
def test_the_loss_is_on_the_response_and_its_end_token_and_on_no_other(
    tokenized: dict[str, Any], kind: str
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(STUDENT / "tokenizer.json"))
    end = json.loads((STUDENT / "tokenizer_config.json").read_text())["eos_token"]
    seen = single_examples(tokenized[kind])
    assert len(seen) == EXAMPLES, "all examples are in the batches"
    met = set()
    for ids, labels in seen:
        start = next(at for at, label in enumerate(labels) if label != -100)
        stop = 1 + max(at for at, label in enumerate(labels) if label != -100)
        assert labels[start:stop] == ids[start:stop], "no gap within the response"
        prompt = tokenizer.decode(ids[:start], skip_special_tokens=False)
        response = tokenizer.decode(ids[start:stop], skip_special_tokens=False)
        index = next(n for n in range(EXAMPLES) if example(n)["instruction"] in prompt)
        assert response == example(index)["response"] + end
        assert "Here is" not in prompt
        met.add(index)
    assert met == set(range(EXAMPLES))


def single_examples(batches: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of each example, cut from padded or packed batches."""
    found = []
    for batch in batches["batches"]:
        for row, (ids, labels) in enumerate(zip(batch["input_ids"], batch["labels"], strict=True)):
            if "position_ids" in batch:
                positions = batch["position_ids"][row]
                starts = [at for at, position in enumerate(positions) if position == 0]
                assert positions == [p for a, b in spans(starts, len(ids)) for p in range(b - a)]
            else:
                length = sum(batch["attention_mask"][row])
                assert set(labels[length:]) <= {-100}, "padding has no loss"
                starts, ids, labels = [0], ids[:length], labels[:length]
            found += [(ids[a:b], labels[a:b]) for a, b in spans(starts, len(ids))]
    return found


def spans(starts: list[int], end: int) -> list[tuple[int, int]]:
    return list(zip(starts, [*starts[1:], end], strict=True))


def test_packed_examples_do_not_see_each_other_and_a_leak_is_refused(
    tokenized: dict[str, Any],
) -> None:
    packed = tokenized["packed"]
    assert len(packed["batches"]) * BATCH < EXAMPLES, "several in a row"
    assert packed["boundaries"] == "kept"
    assert packed["boundaries without positions"].startswith("this model's attention does not keep")


def test_examples_that_are_too_long_are_cut_and_counted(tokenized: dict[str, Any]) -> None:
    assert tokenized["own"]["counts"] == {"examples": EXAMPLES, "dropped": 0, "cut": 0}
    counts = tokenized["short"]["counts"]
    assert counts["cut"] > 0 and counts["examples"] + counts["dropped"] == EXAMPLES
    longest = max(len(ids) for batch in tokenized["short"]["batches"] for ids in batch["input_ids"])
    assert longest == 16


def test_a_template_without_an_end_token_is_refused(tokenized: dict[str, Any]) -> None:
    assert tokenized["endless"]["refused"].startswith("the student's chat template writes no end")


def test_a_template_that_asks_otherwise_than_it_trains_is_refused(
    tokenized: dict[str, Any],
) -> None:
    assert tokenized["two-faced"]["refused"].startswith("the student's chat template writes the p")


@pytest.fixture(scope="module")
def dressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained checkpoint of a base model without chat template."""
    folder = tmp_path_factory.mktemp("dressed")
    bare = without_template(folder / "student")
    with opened(folder / "run", recipe(str(bare), epochs=2)) as context:
        assert chat_template_file(context) == TEMPLATE
        train.run(context)
    return folder / "run/checkpoints/epoch-02"


def test_a_base_without_chat_template_gets_one_with_its_checkpoints(
    dressed: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(dressed)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (
        "A person wrote the request below. Write a reply that does what it asks.\n\n"
        f"### Request\nHi\n\n### Reply\nYes.{tokenizer.eos_token}\n\n"
    )
    with opened(tmp_path / "other", recipe()) as context:
        assert chat_template_file(context) is None, "the student has its own"


def test_a_checkpoint_answers_the_same_in_vllm_and_in_transformers(
    dressed: Path, tmp_path: Path
) -> None:
    """Both are given the folder and nothing else: template and end token come with it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = [example(index)["instruction"] for index in (0, 7, 14)]
    greedy = Sampling(temperature=0.0, top_p=1.0, max_tokens=60)

    async def ask(context: Context) -> list[str]:
        async with serve(context, "student", "pick") as client:
            return [
                (await client.conversation().say(text, template="test", sampling=greedy)).text
                for text in asked
            ]

    with opened(tmp_path, recipe(str(dressed))) as context:
        served = asyncio.run(ask(context))
    tokenizer = AutoTokenizer.from_pretrained(dressed)
    model = AutoModelForCausalLM.from_pretrained(dressed)
    for text, answer in zip(asked, served, strict=True):
        inputs = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = model.generate(**inputs, max_new_tokens=60, do_sample=False)[0]
        reply = tokenizer.decode(ids[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert reply == answer and "Here is the" in answer
