"""Everything that a reader should know before quoting a number, in one list."""

from typing import Any

from localism import tables

MOST_UNSCORED = 0.05  # of the test prompts; more is said aloud


def collect(facts: dict[str, Any]) -> list[dict[str, str]]:
    """where, text and, where there is something to do, advice; the same text only once."""
    found = [
        *_of_the_judge(facts),
        *_of_events(facts),
        *_of_scores(facts),
        *_of_books(facts),
        *_of_licences(facts),
    ]
    return list({notice["text"]: notice for notice in reversed(found)}.values())[::-1]


def _notice(where: str, text: str) -> dict[str, str]:
    return {"where": where, "text": text}


def _of_the_judge(facts: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    said = any("the judge is the teacher" in row["problem"] for row in facts["warnings"])
    if facts["self_judged"] and not said:
        found.append(
            _notice(
                "judge",
                "The judge is the teacher, and answers are compared with the teacher's own "
                "references: expect self-preference. The gain over the base model is less "
                "touched by it than the win rates are.",
            )
        )
    if facts["config"].judge.kind == "likelihood":
        found.append(
            _notice(
                "judge",
                "The judge compares likelihoods: of two answers the one that it finds more "
                "probable, token for token, is preferred. It rewards what it would have written "
                "itself, so the share of answers that show all skills is printed beside the win "
                "rates.",
            )
        )
    return found


def _of_events(facts: dict[str, Any]) -> list[dict[str, str]]:
    found = [_notice(row["stage"], _sentence(row["problem"])) for row in facts["warnings"]]
    found += [
        _notice("cluster", _sentence(row["warning"])) for row in facts["quality"] if row["warning"]
    ]
    died = facts["engines_died"]
    if died:
        found.append(_notice("engines", f"A model server died and was started again: {died}."))
    return found


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _of_scores(facts: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    for row in facts["scores"]:
        asked = row["n"] + row["unscored"]
        if row["metric"] == "win_rate" and row["unscored"] > MOST_UNSCORED * asked:
            found.append(
                _notice(
                    "evaluate",
                    f"{row['unscored']} of {asked} test prompts of {row['model_id']} are "
                    "unscored and not counted.",
                )
            )
    samples = [suite["suite"] for suite in facts["suites"] if suite["is_sample"]]
    if samples:
        is_one = len(samples) == 1
        listed = samples[0] if is_one else f"{', '.join(samples[:-1])} and {samples[-1]}"
        found.append(
            _notice(
                "benchmarks",
                f"{listed} {'was' if is_one else 'were'} run on samples that ship with localism, "
                "not on the benchmarks: such scores cannot be compared with published ones.",
            )
        )
    return found


def _of_books(facts: dict[str, Any]) -> list[dict[str, str]]:
    found = []
    for row in facts["books"]:
        settled = row["accepted"] + row["rejected"] + row["failed"]
        if row["pending"]:
            found.append(
                _notice(
                    row["stage"],
                    f"{row['pending']:,} of {row['planned']:,} planned rows are pending.",
                )
            )
        if row["planned"] != settled + row["pending"]:
            found.append(_notice(row["stage"], "The books do not balance."))
    if facts["refused"]:
        n = len(facts["refused"])
        found.append(
            _notice(
                "air gap", f"{tables.number_of(n, 'attempt')} to leave this machine, all refused."
            )
        )
    return found


def _of_licences(facts: dict[str, Any]) -> list[dict[str, str]]:
    return [
        _notice("licence", _sentence(f"publishing: {conflict}"))
        for conflict in facts["licences"]["conflicts"]
    ]
