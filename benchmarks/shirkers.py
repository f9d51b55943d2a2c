"""Does the gate for shirkers catch poor answers, also of kinds that it was not calibrated on?

    python benchmarks/shirkers.py runs/default

Takes the accepted examples of a finished run of the embedded default, lets the embedded teacher
write brief and careless answers, calibrates the gate at several allowed shares of false alarms and
measures it on held-out instructions; then on damage that the fit never saw: the first half of a
real answer, the answer to another instruction, and one sentence said again and again. A table for
people, then one line of JSON, also written to benchmarks/results/shirkers.json.
"""

import argparse
import asyncio
import io
import json
import platform
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from localism import reader
from localism.context import Context
from localism.curation.candidate import Candidate
from localism.curation.shirkers import Answer, Sample, calibrate
from localism.models_toml import load
from localism.progress import Progress
from localism.prompting.packs import packaged
from localism.serving.server import serve
from localism.stages.curate_shirkers import POOR, Shirkers
from localism.store import Store

RESULT = Path(__file__).parent / "results" / "shirkers.json"
ALLOWED = (0.01, 0.02, 0.05, 0.1)
INSTRUCTIONS = 200


def candidates(folder: Path) -> list[Candidate]:
    """Accepted training examples of the run, in the plan's order."""
    rows = reader.read(
        folder,
        "SELECT m.mix_id, m.split, m.ordinal, c.instruction, c.response FROM candidate c"
        " JOIN mix m USING (mix_id) WHERE c.status = 'accepted' AND m.split = 'train'"
        f" ORDER BY m.ordinal LIMIT {INSTRUCTIONS}",
    ).as_dicts()
    return [Candidate(**row, skills=(), reason=None, finish_reason="stop") for row in rows]


def damaged(examples: Sequence[Candidate]) -> dict[tuple[str, str], tuple[str, str]]:
    """(kind of damage, mix_id) -> (instruction, damaged response)."""
    rng, found = Random(0), {}
    for number, example in enumerate(examples):
        instruction, response = example.instruction or "", example.response or ""
        words = response.split(" ")
        first = response.split(".")[0] + ". "
        other = examples[(number + rng.randrange(1, len(examples))) % len(examples)]
        found["first half", example.mix_id] = instruction, " ".join(words[: len(words) // 2])
        found["other answer", example.mix_id] = instruction, other.response or ""
        found["one sentence", example.mix_id] = (
            instruction,
            first * (len(words) // len(first.split())),
        )
    return found


async def scored(context: Context, examples: Sequence[Candidate]) -> dict[tuple[str, str], Answer]:
    """Every answer, real, poor or damaged, with the judge's score."""
    work = Shirkers(context, "curate")
    texts = {("real", e.mix_id): (e.instruction or "", e.response or "") for e in examples}
    texts |= damaged(examples)
    async with serve(context, "teacher", "curate") as client:
        poor: dict[tuple[str, str], str] = {}
        await work.write_poor(client, examples, poor)
        by_id = {e.mix_id: e.instruction or "" for e in examples}
        texts |= {(kind, mix_id): (by_id[mix_id], text) for (kind, mix_id), text in poor.items()}
        scores = await work.scores(client, texts)
    return {key: Answer(*texts[key], s) for key, s in scores.items() if s is not None}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of the embedded default")
    examples = candidates(parser.parse_args().run)
    config = load(packaged("models.toml"))
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "corpus.duckdb") as store:
        (Path(folder) / "logs").mkdir()
        context = Context(config, store, Path(folder), Progress(io.StringIO(), plain=True))
        answers = asyncio.run(scored(context, examples))
    known = [
        Sample(mix_id, kind, answer)
        for (kind, mix_id), answer in answers.items()
        if kind in ("real", *POOR)
    ]
    held_out = set(sorted({sample.group for sample in known})[1::2])
    rows: list[dict[str, Any]] = []
    for allowed in ALLOWED:
        gate = calibrate(known, allowed)
        row: dict[str, Any] = {"allowed": allowed, "false_alarms": gate.false_alarms, **gate.recall}
        for kind in ("first half", "other answer", "one sentence"):
            caught = [
                not gate.verdict(answer).passed
                for (what, mix_id), answer in answers.items()
                if what == kind and mix_id in held_out
            ]
            row[kind] = sum(caught) / len(caught)
        rows.append(row)
    print(f"{len(held_out)} held-out instructions; shares rejected")
    print("  ".join(f"{name:>12}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>12.2f}" for value in row.values()))
    result = {
        "benchmark": "shirkers", "date": str(date.today()), "python": platform.python_version(),
        "instructions": len(examples), "held_out": len(held_out), "gates": rows,
    }  # fmt: skip
    line = json.dumps(result)
    RESULT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
