"""The shipped embedded models: they load, hold every word of the world, and are small."""

from pathlib import Path

import pytest

from localism.embedded.world import QUERY_TYPES, SKILLS, TOPICS
from localism.prompting.packs import load_pack

FOLDER = Path(__file__).parents[2] / "localism" / "embedded"


@pytest.mark.component
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_every_word_of_the_world_is_one_token(role: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER / role)
    for name in [*SKILLS, *TOPICS, *QUERY_TYPES]:
        pieces = tokenizer.tokenize(f" {name}, {name.replace('_', ' ')}")
        assert len(pieces) == 2 * (name.count("_") + 1) + 1, pieces
    for label in load_pack("compact").judge_labels:
        assert len(tokenizer.encode(label, add_special_tokens=False)) == 1


@pytest.mark.component
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_model_loads_in_bf16_and_ends_its_replies(role: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER / role)
    assert str(model.dtype) == "torch.bfloat16"
    assert model.generation_config.eos_token_id == model.config.eos_token_id == 3


@pytest.mark.component
def test_both_models_together_stay_under_twenty_megabytes() -> None:
    files = [path for role in ("teacher", "student") for path in (FOLDER / role).iterdir()]
    assert sum(path.stat().st_size for path in files) < 20e6
