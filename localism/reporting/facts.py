"""Everything that the report and the dataset card say, read from the corpus once."""

from pathlib import Path
from typing import Any

from localism import offline, recipe, stage_time
from localism.config import Config
from localism.context import Context
from localism.reporting import coverage, evaluations, examples, notices, provenance, work
from localism.store import Row, Store
from localism.tables import number_of

# Metrics of the test split in the order in which the report shows them.
METRICS = {
    "win_rate": "win rate",
    "lc_win_rate": "length-controlled win rate",
    "skill_coverage": "answers with all skills (by words)",
    "finished": "answers that ended by themselves",
    "mean_length": "mean answer, characters",
    "mean_tokens": "mean answer, tokens",
    "word_entropy": "variety of words, bits",
}
PERCENT = ("win_rate", "lc_win_rate", "skill_coverage", "finished")
GAIN = "preference_gain"
# Refused connections that differ; more would be a page of their own.
ATTEMPTS_SHOWN = 200
# Measures of a clustering that are numbers of things.
COUNTED = {"skills", "clusters", "rare_skills"}


def collect(context: Context) -> dict[str, Any]:
    """Facts by name; lists of row dicts where the corpus has rows."""
    store, config = context.store, context.config
    query = store.query
    assets = query("SELECT * FROM asset ORDER BY role, path")
    refused = offline.refused_connections(context.folder)
    stages, tokens = query(stage_time.STAGES), query("SELECT * FROM tokens")
    facts = {
        **_about(store, config),
        **provenance.collect(store, config, assets),
        **coverage.collect(store),
        **_skills(store),
        **_results(store, config, context.folder),
        "stages": stages,
        "tokens": tokens,
        "costs": work.costs(store, stages, tokens),
        "trained": work.trained(store),
        "funnel": work.funnel(store, config),
        "books": query("SELECT * FROM books"),
        "dataset": query("SELECT * FROM dataset_stats WHERE set_name = 'accepted'"),
        "rejections": query("SELECT * FROM rejections LIMIT 24"),
        "examples": examples.accepted_examples(store),
        "rejected": examples.rejected_examples(store),
        "duels": examples.duels(store),
        "refused": refused,
        "attempts": provenance.grouped(refused),
        "attempts_shown": ATTEMPTS_SHOWN,
        "allowed_hosts": recipe.named_hosts(config),
    }
    return {**facts, "notices": notices.collect(facts)}


def _about(store: Store, config: Config) -> dict[str, Any]:
    """The run itself, what happened to it, and its splits."""
    query = store.query
    return {
        "run": query("SELECT * FROM run")[0],
        "config": config,
        "self_judged": bool(config.judge.same_as) or config.judge.path == config.teacher.path != "",
        "rehearsal": config.is_rehearsal(),
        "warnings": query(
            "SELECT stage, detail->>'problem' AS problem FROM event WHERE kind = 'warning' "
            "ORDER BY happened_at"
        ),
        "engines_died": store.value("SELECT count(*) FROM event WHERE kind = 'engine_died'"),
        "carried_over": query(
            "SELECT detail->>'parent' AS parent, (detail->>'turns')::BIGINT AS calls "
            "FROM event WHERE kind = 'forked'"
        ),
        "splits": query(
            "SELECT m.split, count(*) AS planned, "
            "count(*) FILTER (c.status IN ('written', 'accepted', 'rejected')) AS written, "
            "count(*) FILTER (c.status = 'accepted') AS accepted "
            "FROM mix m LEFT JOIN candidate c USING (mix_id) GROUP BY m.split "
            "ORDER BY CASE m.split WHEN 'train' THEN 0 WHEN 'dev' THEN 1 ELSE 2 END"
        ),
    }


def _skills(store: Store) -> dict[str, Any]:
    """How many of what, the clusters, and how sound the clustering is."""
    query = store.query
    return {
        "counts": query(
            "SELECT (SELECT count(*) FROM topic) AS topics, "
            "(SELECT count(*) FROM seed_example) AS seeds, "
            "(SELECT count(*) FROM skill_label) AS labels, (SELECT count(*) FROM skill) AS skills, "
            "(SELECT count(*) FROM skill WHERE rare) AS rare, "
            "(SELECT count(*) FROM cluster WHERE size > 1) AS clusters, "
            "(SELECT count(*) FROM query_type) AS query_types"
        )[0],
        "clusters": query("SELECT * FROM cluster ORDER BY size DESC, name"),
        "quality": [
            {**row, "value": int(row["value"]) if row["metric"] in COUNTED else row["value"]}
            for row in query("SELECT * FROM cluster_quality ORDER BY metric")
        ],
    }


def _results(store: Store, config: Config, folder: Path) -> dict[str, Any]:
    """Checkpoints, scores on test, benchmarks, judges and trainings."""
    query = store.query
    path = config.served("judge").path or "the run's judge"
    judges = evaluations.judges(store, f"{Path(path).name}, judge of this run")
    return {
        "checkpoints": query("SELECT * FROM checkpoint_curve WHERE training = 'main'"),
        "criteria": query("SELECT * FROM picks WHERE training = 'main'"),
        "scores": query(
            "SELECT * FROM score WHERE split = 'test' AND model_id NOT IN"
            " (SELECT checkpoint_id FROM checkpoint WHERE training <> 'main')"
        ),
        "judges": judges,
        "suites": evaluations.suites(store, judges),
        "trainings": evaluations.trainings(store, folder),
    }


def picked_checkpoint(facts: dict[str, Any]) -> Row | None:
    """The row of the picked checkpoint."""
    return next((row for row in facts["checkpoints"] if row["picked"]), None)


def gain(facts: dict[str, Any]) -> Row | None:
    """The headline score: picked against base on the same test prompts, in points."""
    return next((row for row in facts["scores"] if row["metric"] == GAIN), None)


def verdict(facts: dict[str, Any]) -> str:
    """One sentence that a person can quote, with its interval."""
    picked, score = picked_checkpoint(facts), gain(facts)
    if picked is None or score is None or score["value"] is None:
        return "No verdict: nothing on test could be scored."
    if score["low"] is None:
        return f"No verdict: only {score['n']} prompt on test has both models scored."
    interval = f"95% CI {score['low']:+.1f} to {score['high']:+.1f}"
    if score["unscored"]:
        interval += f"; {score['unscored']} unscored, not counted"
    where = f"on {number_of(score['n'], 'unseen prompt')} ({interval})."
    if score["low"] <= 0 <= score["high"]:
        return f"Epoch {picked['epoch']} cannot be told from the base model {where}"
    direction = "beats" if score["value"] > 0 else "falls behind"
    points = f"{abs(score['value']):.1f} points of preference"
    return f"Epoch {picked['epoch']} {direction} the base model by {points} {where}"


def test_blocks(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Test scores, a block a metric in display order: its name, its axis, its rows by model."""
    by_metric: dict[str, list[Row]] = {}
    for row in facts["scores"]:
        by_metric.setdefault(row["metric"], []).append(row)
    blocks = []
    for metric in METRICS:
        rows = sorted(by_metric.get(metric, []), key=_models_first)
        if rows:
            axis = [0.0, 100.0] if metric in PERCENT else evaluations.scale(rows)
            digits = 0 if metric in evaluations.LENGTHS else 2 if metric == "word_entropy" else 1
            blocks.append(
                {"metric": METRICS[metric], "rows": rows, "scale": axis, "digits": digits}
            )
    return blocks


def _models_first(row: Row) -> tuple[int, str]:
    """The picked checkpoint, the base, the reference."""
    return ({"base": 1, "reference": 2}.get(row["model_id"], 0), row["model_id"])
