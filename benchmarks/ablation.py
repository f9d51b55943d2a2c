"""What bad answers and other numbers of skills do to the student: effects with intervals.

    python benchmarks/ablation.py RUN [--sets brevity-20 junk-20 k-1 k-3] [--seeds 0 1 2]

RUN is a finished run with these training sets (localism variant). Each set, and the accepted
examples, is trained with each seed, picked from on dev and measured on test, by the ordinary
commands; what is there already is not done again. The effect of a set is the mean over seeds and
test prompts of its preference (or length, or share of answers with all skills) minus that of the
accepted examples with the same seed on the same prompt. Its 95% interval is the pigeonhole
bootstrap (Owen 2007): seeds and prompts are drawn anew, each by itself; it errs on the wide side.
A table, then one line of JSON, also in benchmarks/results/ablation.json; the plot beside it.
"""

import argparse
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from localism import reader, run
from localism.skill_names import mentions
from localism.training.sets import ACCEPTED

RESULTS = Path(__file__).parent / "results"
RESAMPLES = 10_000
METRICS = {
    "preference": "win rate against the reference, points",
    "skills": "answers that show all skills, points",
    "characters": "length of answers, characters",
}


def work(name: str, sets: list[str], seeds: list[int]) -> None:
    """Train, pick and evaluate whatever is missing."""
    on = [word for one in (ACCEPTED, *sets) for word in ("--on", one)]
    on += [word for seed in seeds for word in ("--seed", str(seed))]
    for stage in ("train", "pick", "evaluate"):
        command = [sys.executable, "-m", "localism", stage, "--plain", "--run", name, *on]
        subprocess.run(command, check=True)


def measured(folder: Path) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """(set, seed) -> metric -> a value for each test prompt, in one order of prompts for all."""
    rows = reader.read(
        folder,
        """
        WITH picks AS (
            SELECT c.checkpoint_id, coalesce(t.set_name, 'accepted') AS set_name,
                   coalesce(t.seed, (SELECT (recipe->>'$.seed')::BIGINT FROM run)) AS seed
            FROM checkpoint c LEFT JOIN training t ON t.name = c.training
            WHERE c.picked AND (t.name IS NOT NULL OR c.training = 'main')
        )
        SELECT p.set_name, p.seed, a.mix_id, avg(j.preference) AS preference, a.text,
               (SELECT list(s.name) FROM mix_skill ms JOIN skill s USING (skill_id)
                WHERE ms.mix_id = a.mix_id) AS skills
        FROM picks p JOIN answer a ON a.model_id = p.checkpoint_id AND a.split = 'test'
        JOIN judgment j USING (answer_id) GROUP BY ALL ORDER BY p.set_name, p.seed, a.mix_id
        """,
    ).as_dicts()
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for key in dict.fromkeys((row["set_name"], row["seed"]) for row in rows):
        own = [row for row in rows if (row["set_name"], row["seed"]) == key]
        shown = [all(mentions(skill, row["text"]) for skill in row["skills"]) for row in own]
        found[key] = {
            "preference": 100 * np.array([row["preference"] for row in own], float),
            "skills": 100 * np.array(shown, float),
            "characters": np.array([len(row["text"]) for row in own], float),
        }
    return found


def effect(differences: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
    """Mean of a seeds x prompts matrix of differences, and its pigeonhole interval."""
    seeds, prompts = differences.shape
    means = [
        differences[
            np.ix_(random.integers(seeds, size=seeds), random.integers(prompts, size=prompts))
        ].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "value": float(differences.mean()),
        "low": float(low),
        "high": float(high),
        "by_seed": [float(one) for one in differences.mean(axis=1)],
        "prompts": prompts,
    }


def effects(folder: Path, sets: list[str], seeds: list[int]) -> dict[str, dict[str, Any]]:
    """set -> metric -> effect against the accepted examples; 'accepted' itself has its level."""
    found = measured(folder)
    random = np.random.default_rng(0)
    results: dict[str, dict[str, Any]] = {}
    for name in (ACCEPTED, *sets):
        results[name] = {}
        for metric in METRICS:
            mine = np.array([found[name, seed][metric] for seed in seeds])
            base = np.array([found[ACCEPTED, seed][metric] for seed in seeds])
            differences = mine if name == ACCEPTED else mine - base
            results[name][metric] = effect(differences, random)
            results[name][metric]["level"] = float(mine.mean())
    return results


def training_facts(folder: Path) -> list[dict[str, Any]]:
    """What each training was: examples, picked epoch, win rates on test."""
    return reader.read(
        folder,
        """
        WITH test AS (
            SELECT model_id AS checkpoint_id, metric, value FROM score WHERE split = 'test'
        )
        SELECT c.training, c.epoch AS picked_epoch, wr.value AS win_rate, lc.value AS lc_win_rate
        FROM checkpoint c
        LEFT JOIN test wr ON wr.checkpoint_id = c.checkpoint_id AND wr.metric = 'win_rate'
        LEFT JOIN test lc ON lc.checkpoint_id = c.checkpoint_id AND lc.metric = 'lc_win_rate'
        WHERE c.picked ORDER BY c.training <> 'main', c.training
        """,
    ).as_dicts()


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel a metric: each set's effect, its interval, and the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in results if name != ACCEPTED][::-1]
    figure, panels = plt.subplots(
        1, len(METRICS), figsize=(11, 0.6 + 0.5 * len(names)), sharey=True
    )
    for panel, (metric, words) in zip(panels, METRICS.items(), strict=True):
        for place, name in enumerate(names):
            one = results[name][metric]
            panel.plot([one["low"], one["high"]], [place, place], color="#1f5fa8", linewidth=2)
            panel.plot(one["value"], place, "o", color="#1f5fa8", markersize=7)
            panel.plot(one["by_seed"], [place - 0.22] * len(one["by_seed"]), ".", color="#888888")
        panel.axvline(0, color="#444444", linewidth=1)
        panel.set_title(f"change in {words}", fontsize=9)
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(-0.6, len(names) - 0.4)
        panel.grid(axis="x", alpha=0.3)
        level = results[ACCEPTED][metric]["level"]
        panel.set_xlabel(f"accepted: {level:.1f}", fontsize=8)
    figure.suptitle(
        "Against the accepted examples, same seeds and prompts; dots are seeds", fontsize=10
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def report(results: dict[str, dict[str, Any]]) -> None:
    """The table."""
    print(f"{'set':<14}" + "".join(f"{metric:>34}" for metric in METRICS))
    for name, metrics in results.items():
        cells = [
            f"{one['value']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f}), at {one['level']:.1f}"
            if name != ACCEPTED
            else f"{one['level']:.1f}"
            for one in metrics.values()
        ]
        print(f"{name:<14}" + "".join(f"{cell:>34}" for cell in cells))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--sets", nargs="+", default=["brevity-20", "junk-20", "k-1", "k-3"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--only-read", action="store_true", help="Everything has been done already."
    )
    asked = parser.parse_args()
    folder = run.existing_folder(asked.run)
    if not asked.only_read:
        work(asked.run, asked.sets, asked.seeds)
    results = effects(folder, asked.sets, asked.seeds)
    report(results)
    draw(results, RESULTS / "ablation.png")
    line = json.dumps(
        {
            "benchmark": "ablation",
            "date": date.today().isoformat(),
            "seeds": asked.seeds,
            "effects": results,
            "trainings": training_facts(folder),
        }
    )
    (RESULTS / "ablation.json").write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
