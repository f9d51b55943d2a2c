"""The tokenizer of teacher and student: every word of the world is one token, others fall apart."""

from pathlib import Path
from random import Random

from transformers import PreTrainedTokenizerFast

from localism.embedded import world
from localism.embedded.tasks import MIXES, draw_turns, plain_document

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
MAX_TOKENS = 1024
MERGED_TOKENS = 900

# The generation markers tell TRL which tokens the assistant wrote. A system message is read as a
# user's.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' -}}"
    "{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}"
    "{{- '<|user|>' + message['content'] -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
# A word keeps the space or underscore in front of it, so "_meals" and " meals" are one token each.
_PIECES = r"\n|[_ ]?[A-Za-z]+|\d| ?[^\sA-Za-z\d_]+|\s"


def world_pieces(samples: int = 4000) -> list[str]:
    """Text that holds every piece (word with its lead) that the grammar can write, and others."""
    rng = Random(99)
    texts = []
    for _ in range(samples):
        for mix in MIXES:
            for turn in draw_turns(rng, mix, 1.0):
                texts += [turn.user, turn.assistant]
        texts.append(plain_document(rng))
    verbs = [form for verb, (ing, _) in world.VERBS.items() for form in (verb, ing)]
    words = {word for noun in world.NOUNS for word in noun.split("_")} | set(verbs)
    words |= {word for name in [*world.TOPICS, *world.QUERY_TYPES] for word in name.split("_")}
    texts.append(" ".join(f" {word} _{word}" for word in sorted(words)))
    texts.append("\n".join(verb.capitalize() for verb in verbs))
    return texts


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Train merges on the world's text, then add each whole word that merging did not reach."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    texts = world_pieces()
    merged = Tokenizer(models.BPE())
    merged.pre_tokenizer = splitter
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    merged.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=MERGED_TOKENS,
            special_tokens=[PAD, USER, ASSISTANT, END],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    vocabulary, merges = _with_whole_words(merged, splitter, texts)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([PAD, USER, ASSISTANT, END])
    return wrap_tokenizer(tokenizer)


def _with_whole_words(merged, splitter, texts):  # type: ignore[no-untyped-def]
    """The trained vocabulary plus every whole piece of the texts that contains a letter."""
    import json

    state = json.loads(merged.to_str())["model"]
    vocabulary = dict(state["vocab"])
    pieces = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    for piece in sorted(pieces - set(vocabulary)):
        if any(character.isalpha() for character in piece):
            vocabulary[piece] = len(vocabulary)
    return vocabulary, [tuple(pair) for pair in state["merges"]]


def wrap_tokenizer(tokenizer) -> PreTrainedTokenizerFast:  # type: ignore[no-untyped-def]
    """The transformers face of the tokenizer, with its chat template."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as saved."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
