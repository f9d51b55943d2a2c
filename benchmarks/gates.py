"""The gates that look at one text: what they find, what they reject wrongly, how long they take.

    python benchmarks/gates.py

On the hand-written examples of tests/data (good ones, and bad ones that each belong to one gate;
"tricky" are those written to tempt a gate or to slip through it), and on prose that nobody wrote
for the gates: docstrings of 60 to 400 words of the installed Python libraries. The latter hold much
code and markup and are no answers, but they are real and their authors meant them to be whole:
whatever is rejected there, other than control tokens, is mostly a false alarm. A table for people,
then one line of JSON, also written to benchmarks/results/gates.json.
"""

import ast
import json
import platform
import random
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

from localism.config import Curate
from localism.curation import gates
from localism.curation.candidate import Candidate, Verdict
from localism.curation.gates import Bounds, Markers
from localism.curation.language import language
from localism.curation.personal import personal_data
from localism.curation.repetition import repetition
from localism.curation.talk import refusal, self_talk
from localism.paths import embedded
from localism.stages.curate import token_counter

RESULT = Path(__file__).parent / "results" / "gates.json"
DATA = Path(__file__).parent.parent / "tests" / "data"
DOCSTRINGS, PER_FILE = 3_000, 2
QUESTION = "Explain what this part of the program does, please."
DEFAULTS = Curate()


def all_gates() -> dict[str, Callable[[Candidate], Verdict]]:
    """With the default thresholds, tokens being those of the built-in student."""
    bounds = Bounds(
        (DEFAULTS.min_instruction_tokens, DEFAULTS.max_instruction_tokens),
        (DEFAULTS.min_response_tokens, DEFAULTS.max_response_tokens),
    )
    count = token_counter(embedded("embedded:student"))
    markers = Markers("### Instruction", "### Response")
    return {
        "complete": gates.complete,
        "length": lambda one: gates.length(one, bounds, count),
        "markers": lambda one: gates.no_markers(one, markers),
        "repetition": lambda one: repetition(one, DEFAULTS.max_repeated, DEFAULTS.min_compression),
        "refusal": lambda one: refusal(one, DEFAULTS.max_refusal_words),
        "self_talk": self_talk,
        "language": lambda one: language(one, DEFAULTS.languages),
        "personal_data": lambda one: personal_data(one, DEFAULTS.max_personal_data),
    }


def candidate(instruction: str, response: str) -> Candidate:
    """An example that ended by itself."""
    return Candidate("a", "train", 0, ("x",), instruction, response, None, "stop")


def docstrings(wanted: int) -> list[str]:
    """Docstrings of the libraries beside this Python, at most two a file, seeded."""
    rng = random.Random(0)
    files = sorted(Path(sysconfig.get_paths()["purelib"]).rglob("*.py"))
    rng.shuffle(files)
    texts: list[str] = []
    for path in files:
        found = [text for text in _docstrings(path) if 60 <= len(text.split()) <= 400]
        texts += rng.sample(found, min(PER_FILE, len(found)))
        if len(texts) >= wanted:
            break
    return texts[:wanted]


def _docstrings(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_text())
    except (SyntaxError, ValueError, OSError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            yield ast.get_docstring(node) or ""


def examples(name: str) -> list[dict[str, str]]:
    """Hand-written ones."""
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def main() -> None:
    """Measure, print, save."""
    good = examples("good_examples.jsonl") + examples("tricky_good.jsonl")
    bad = examples("bad_examples.jsonl") + examples("tricky_bad.jsonl")
    wild = docstrings(DOCSTRINGS)
    rows: dict[str, dict[str, Any]] = {}
    for name, gate in all_gates().items():
        own = [row for row in bad if row["gate"] == name]
        began = time.process_time()
        reasons = [gate(candidate(QUESTION, text)).reason for text in wild]
        seconds = time.process_time() - began
        rows[name] = {
            "bad": len(own),
            "found": sum(not gate(candidate(r["instruction"], r["response"])).passed for r in own),
            "good_rejected": sum(
                not gate(candidate(r["instruction"], r["response"])).passed for r in good
            ),
            "docstrings_rejected": dict(
                Counter(reason.split(": ")[0] for reason in reasons if reason).most_common()
            ),
            "milliseconds": round(1000 * seconds / len(wild), 2),
        }
        print(f"{name:<14}" + "  ".join(f"{key} {value}" for key, value in rows[name].items()))
    result = {
        "benchmark": "gates",
        "date": str(date.today()),
        "python": platform.python_version(),
        "command": "python benchmarks/gates.py",
        "good": len(good),
        "docstrings": len(wild),
        "gates": rows,
    }
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
