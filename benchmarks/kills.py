"""kill -9 at 20 random moments of a small embedded run, then completion: is anything lost or twice?

    python benchmarks/kills.py --kills 20 --span 40

Prints the moments, the books and the keys, then one JSON line; saves benchmarks/results/kills.json.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from pipeline import kill_repeatedly, run_all  # noqa: E402  (tests/ is no package)

from localism import __version__, reader, tables  # noqa: E402

KEYS = {
    "turn": "turn_id", "candidate": "mix_id", "answer": "answer_id", "judgment": "judgment_id",
    "verdict": "mix_id || gate", "skill_label": "label_id", "mix": "mix_id",
}  # fmt: skip
# What a run of this size must hold, whatever happened on the way: 38 mixes, three turns each.
COUNTS = """
SELECT (SELECT count(*) FROM mix) AS mixes, (SELECT count(*) FROM candidate) AS candidates,
       (SELECT count(*) FROM turn WHERE stage = 'generate') AS generate_turns,
       (SELECT count(*) FROM checkpoint) AS checkpoints
"""


def main() -> None:
    """Kill, complete, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--span", type=float, default=40.0, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) / "runs" / "killed"
    moments = kill_repeatedly(folder, options.kills, options.span, random.Random(options.seed))
    done = subprocess.run(run_all(folder), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    books = reader.read(folder, "FROM books")
    unbalanced = [
        row for row in books.as_dicts()
        if row["planned"] != row["accepted"] + row["rejected"] + row["failed"] or row["pending"]
    ]  # fmt: skip
    twice = {
        name: reader.read(folder, f"SELECT count(*) - count(DISTINCT {key}) AS n FROM {name}").rows[
            0
        ][0]
        for name, key in KEYS.items()
    }
    counts = reader.read(folder, COUNTS).as_dicts()[0]
    print(f"killed after {', '.join(f'{m:.0f}' for m in moments)} s")
    print(tables.render(books, "table"))
    print(f"keys twice: {twice}\n{counts}\n")
    result = {
        "benchmark": "kills", "date": str(date.today()), "version": __version__,
        "kills": len(moments), "seconds_lived": moments, "unbalanced_books": unbalanced,
        "keys_twice": twice, **counts,
    }  # fmt: skip
    line = json.dumps(result)
    (ROOT / "benchmarks" / "results" / "kills.json").write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
