"""How much each stage of a configuration has to do, in units of its own.

    extract     labels asked for: topics x skills, and seed examples that are labelled
    generate    planned examples; curate looks at each
    train       examples read over all epochs
    pick        answers: checkpoints x dev prompts; evaluate: two models x test prompts

Stages that ask no model and train nothing (cluster, mix, report) take minutes and are left out,
unless an earlier run shows what they took.
"""

from collections.abc import Mapping

from localism.config import Config
from localism.prompting.packs import load_pack
from localism.stages.train_plan import derive_epochs

UNITS = {
    "extract": "labels",
    "generate": "examples",
    "curate": "examples",
    "train": "read",
    "pick": "answers",
    "evaluate": "answers",
}


def units(config: Config) -> Mapping[str, int]:
    """Units of each stage."""
    extract, mix = config.extract, config.mix
    labels = extract.topics * extract.skills_per_topic if extract.method != "sdd" else 0
    if extract.method != "sda":
        labels += sum(source.sample or extract.seed_examples for source in extract.seeds)
    epochs = derive_epochs(config.train, mix.train)[0]
    examples = mix.train + mix.dev + mix.test
    return {
        "extract": labels,
        "generate": examples,
        "curate": examples,
        "train": mix.train * epochs,
        "pick": mix.dev * epochs,
        "evaluate": mix.test * 2,
    }


def assumed_calls(config: Config) -> Mapping[str, float]:
    """Model calls of a unit, where no earlier run shows them: counted from recipe and pack."""
    extract, gates = config.extract, config.curate.gates
    lists = extract.topics * 2 * extract.samples / max(1, extract.list_length)
    labels = max(1, units(config)["extract"])
    seeds = labels - (extract.topics * extract.skills_per_topic if extract.method != "sdd" else 0)
    turns = [turn for turn in load_pack(config.prompts.pack).turns if not turn.only_if_cut_off]
    judge = config.mix.k if "skills" in gates and config.curate.skills == "judge" else 0
    shirker = 2 if "shirker" in gates and config.judge.kind == "likelihood" else 1
    orders = 2 if config.both_orders() or config.judge.kind == "likelihood" else 1
    return {
        "extract": (lists + seeds) / labels,
        "generate": len(turns),
        "curate": judge + (shirker if "shirker" in gates else 0),
        "train": 0,
        "pick": 1 + orders,
        "evaluate": 1 + orders,
    }


def assumed_output(config: Config) -> Mapping[str, float]:
    """Tokens written for a unit, where no earlier run shows them.

    Half of what a turn may take, a third of the student's longest answer; a judgment is one token.
    """
    pack = load_pack(config.prompts.pack)
    turns = [turn for turn in pack.turns if not turn.only_if_cut_off]
    lists = pack.extract_sampling.max_tokens / 2
    answer = config.student.max_tokens / 3
    calls = assumed_calls(config)
    return {
        "extract": calls["extract"] * lists,
        "generate": sum(turn.sampling.max_tokens for turn in turns) / 2,
        "curate": calls["curate"],
        "train": 0,
        "pick": answer + calls["pick"] - 1,
        "evaluate": answer + calls["evaluate"] - 1,
    }


def assumed_prompt(config: Config) -> float:
    """Tokens sent with a call, where no earlier run shows them: a template and a reply before it.

    Four characters a token, as in English.
    """
    pack = load_pack(config.prompts.pack)
    texts = [(pack.folder / f"{turn.template}.txt").read_text("utf-8") for turn in pack.turns]
    replies = sum(turn.sampling.max_tokens for turn in pack.turns) / 2
    return (sum(map(len, texts)) / 4 + replies) / len(pack.turns)


def assumed_example(config: Config) -> float:
    """Tokens of a training example, where no earlier run shows them: half a longest last reply."""
    longest = load_pack(config.prompts.pack).turns[-1].sampling.max_tokens
    return min(config.train.max_length, longest / 2)
