"""A prompt pack as text for people: what it holds, and its conversation with an example."""

from collections.abc import Sequence

from localism.errors import UsageError
from localism.prompting.packs import SAMPLES, VARIABLES, Pack, Turn, trial_values

# Shown where no skills are named: as many of these as k says.
SKILLS = (
    "estimating_risk",
    "adjusting_tone",
    "reading_timetables",
    "explaining_by_analogy",
    "spotting_contradictions",
    "planning_backwards",
)


def headline(pack: Pack) -> tuple[str, str]:
    """A pack in short: its turns, and what it is for."""
    turns = [f"({turn.name})" if turn.only_if_cut_off else turn.name for turn in pack.turns]
    return ", ".join(turns), pack.description


def summary(pack: Pack) -> str:
    """Turns with their conditions, templates, uses, and lengths in characters."""
    turns = [(turn.name, *_described(turn)) for turn in pack.turns]
    widths = [max(map(len, column)) for column in zip(*turns, strict=True)]
    cells = [
        "  ".join(cell.ljust(width) for cell, width in zip(turn, widths, strict=True)).rstrip()
        for turn in turns
    ]
    labels = ["turns", *[""] * (len(turns) - 1)]
    rows = [
        (pack.name, pack.description or "no description"),
        *zip(labels, cells, strict=True),
        ("markers", f"{pack.instruction_marker} and {pack.response_marker}"),
        ("templates", ", ".join(sorted(pack.templates))),
        ("good for", "; ".join(_uses(pack))),
        ("prompts", _lengths(pack)),
    ]
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(label.ljust(width) + text for label, text in rows)


def conversation(pack: Pack, skills: Sequence[str], query_type: object) -> str:
    """Every turn of the pack, filled, each under a line that says when it runs."""
    parts = [
        f"--- {turn.name}: {', '.join(_described(turn))}\n"
        + _filled(pack, turn, skills, query_type)
        for turn in pack.turns
    ]
    return "\n\n".join(parts)


def one(pack: Pack, name: str, skills: Sequence[str], query_type: object) -> str:
    """One turn, or one template of another kind with sample values; UsageError names them all."""
    for turn in pack.turns:
        if turn.name == name:
            return _filled(pack, turn, skills, query_type)
    others = sorted(pack.templates.keys() & VARIABLES.keys())
    if name in others:
        return pack.render(name, **trial_values(name)[0])
    raise UsageError(
        f"prompt pack {pack.name} has no turn or template {name!r}",
        where=f"--turn {name}",
        fix=f"its turns: {', '.join(t.name for t in pack.turns)}; others: {', '.join(others)}",
    )


def _filled(pack: Pack, turn: Turn, skills: Sequence[str], query_type: object) -> str:
    return pack.render(
        turn.template, skills=list(skills), query_type=query_type, structured=turn.structured
    )


def _described(turn: Turn) -> tuple[str, str, str, str]:
    sampling = turn.sampling
    form = "JSON" if turn.structured else "example"
    return (
        "if cut off" if turn.only_if_cut_off else "always",
        f"{turn.template}.txt",
        form if turn.has_example else "no example",
        f"temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, "
        f"at most {sampling.max_tokens:,} tokens",
    )


def _uses(pack: Pack) -> list[str]:
    """What a run may ask of it, and what it leaves out."""
    lists = "JSON" if pack.structured else "text"
    turns = [turn.template for turn in pack.turns]
    abilities = {
        f"SDA (lists as {lists})": True,
        "domains": pack.uses("topics", "domain"),
        "taxonomies": pack.uses("topics", "subject"),
        "query types": any(pack.uses(template, "query_type") for template in turns),
        "SDD": pack.has("label"),
        "cluster names and labels by the teacher": pack.has("cluster_name") and pack.has("relabel"),
        "skills checked by the judge": pack.has("shows_skill"),
        "answers rated by the judge": pack.has("rate"),
        "brief answers": pack.has("brevity"),
        "junk answers": pack.has("junk"),
        "calibrating the judge": pack.has("longer") and pack.has("shorter"),
    }
    able = ", ".join(name for name, is_able in abilities.items() if is_able)
    lacking = ", ".join(name for name, is_able in abilities.items() if not is_able)
    return [able, *([f"not for {lacking}"] if lacking else [])]


def _lengths(pack: Pack) -> str:
    """Characters of the user messages, and the most tokens of the replies to them."""
    length = {
        turn: len(_filled(pack, turn, SKILLS[:2], SAMPLES["query_type"])) for turn in pack.turns
    }
    always = [turn for turn in pack.turns if not turn.only_if_cut_off]
    text = f"about {sum(length[turn] for turn in always):,} characters a conversation"
    if len(always) < len(pack.turns):
        text += f", {sum(length.values()):,} with every turn"
    tokens = sum(turn.sampling.max_tokens for turn in pack.turns)
    return f"{text} (two skills); replies of {tokens:,} tokens at most"
