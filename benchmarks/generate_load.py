"""The conversations that benchmarks/generate.py holds, the same for every side, and the models.

Replies end at max_tokens (ignore_eos), so that all sides write the same number of tokens whatever
the weights say. Prompts of different sides and passes differ in a label of fixed length, so that no
side finds another's replies in the ledger or another's prompts in the engine's prefix cache.
"""

import json
import math
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from localism.paths import embedded
from localism.prompting.packs import load_pack

MAX_MODEL_LEN = 1024
# Three turns of fixed length, as the pack has them.
FIXED_TOKENS = {"draft": 64, "critique": 24, "refine": 64}
FIVE_TURNS = ("draft", "critique", "refine", "critique", "refine")
# Log-normal. Sigma as the lengths of GPT-4's 805 AlpacaEval answers have it (0.9 to 1.2 in three
# styles); the limit is four times the mean, as max_tokens is to the replies of a real teacher.
MEDIAN_TOKENS, SIGMA, FEWEST_TOKENS, MOST_TOKENS = 40, 0.9, 4, 240
# Leaves room for five prompts and the chat template in MAX_MODEL_LEN.
MOST_TOKENS_A_CONVERSATION = 840
# hidden size, intermediate size, layers, heads, heads of keys and values. 100m is about what it
# says with the embedded teacher's vocabulary of 2,392; 1b and 8b are Llama 3's, where this
# vocabulary instead of 128,256 leaves 1.0 and 7.0 billion.
SHAPES = {
    "100m": (768, 2048, 14, 12, 12),
    "1b": (2048, 8192, 16, 32, 8),
    "8b": (4096, 14336, 32, 32, 8),
}


class Request(NamedTuple):
    """One turn."""

    template: str
    """Name of the turn in the prompt pack."""
    prompt: str
    """User message."""
    temperature: float
    """Of the pack."""
    top_p: float
    """Of the pack."""
    max_tokens: int
    """Reply tokens, exactly."""


@dataclass(frozen=True)
class Load:
    """What every side does in one pass."""

    name: str
    """Decides the lengths together with the pass."""
    varies: bool
    """Five turns of drawn lengths; otherwise three of fixed ones."""
    conversations: int
    """Conversations a pass."""
    max_num_seqs: int
    """Sequences that the engine decodes at once."""

    @property
    def turns(self) -> tuple[str, ...]:
        """Templates of a conversation, in order."""
        return FIVE_TURNS if self.varies else tuple(FIXED_TOKENS)

    def lengths(self, one_pass: int) -> list[list[int]]:
        """Reply tokens of each turn of each conversation, the same for all sides."""
        if not self.varies:
            return [list(FIXED_TOKENS.values()) for _ in range(self.conversations)]
        drawn = random.Random(f"{self.name} {one_pass}")
        return [_fitting_lengths(drawn) for _ in range(self.conversations)]

    def tokens(self, one_pass: int) -> int:
        """Reply tokens of a pass."""
        return sum(map(sum, self.lengths(one_pass)))

    def held_by(self, side: str, one_pass: int) -> Iterator[list[Request]]:
        """The conversations of one pass of a side, which is one letter."""
        pack = load_pack("compact")
        turns = {turn.name: turn for turn in pack.turns}
        for number, lengths in enumerate(self.lengths(one_pass)):
            skills = [f"skill {side} {one_pass:03d} {number:05d}", "careful planning"]
            yield [
                Request(
                    name,
                    pack.render(name, skills=skills, query_type=None),
                    turns[name].sampling.temperature,
                    turns[name].sampling.top_p,
                    tokens,
                )
                for name, tokens in zip(self.turns, lengths, strict=True)
            ]


def _fitting_lengths(drawn: random.Random) -> list[int]:
    while True:
        lengths = [
            min(
                MOST_TOKENS,
                max(FEWEST_TOKENS, round(drawn.lognormvariate(math.log(MEDIAN_TOKENS), SIGMA))),
            )
            for _ in FIVE_TURNS
        ]
        if sum(lengths) <= MOST_TOKENS_A_CONVERSATION:
            return lengths


def make_model(name: str, folder: Path) -> Path:
    """A Llama with the embedded teacher's tokenizer: random weights for 100m, for others none.

    vLLM makes the weights of a folder without any itself (--load-format dummy). The small one has
    its own because localism chooses threads and cache on a CPU by counting parameters.
    """
    from transformers import LlamaConfig

    source = embedded("embedded:teacher")
    known = json.loads((source / "config.json").read_text())
    hidden, intermediate, layers, heads, key_value_heads = SHAPES[name]
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
        vocab_size=known["vocab_size"],
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        max_position_embeddings=MAX_MODEL_LEN,
        tie_word_embeddings=True,
        bos_token_id=known["bos_token_id"],
        eos_token_id=known["eos_token_id"],
        pad_token_id=known["pad_token_id"],
    )
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(source / file, folder / file)
    if name == "100m":
        _save_random_weights(config, folder)
    return folder


def _save_random_weights(config: object, folder: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def has_weights(folder: Path) -> bool:
    """Whether vLLM loads weights from the folder or makes some."""
    return any(folder.glob("*.safetensors"))
