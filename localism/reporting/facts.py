"""Everything that the report and the dataset card say, read from the corpus once."""

from typing import Any

from localism import offline
from localism.context import Context
from localism.store import Row, Store

# Metrics of the test split in the order in which the report shows them.
METRICS = {
    "win_rate": "win rate",
    "lc_win_rate": "length-controlled win rate",
    "skill_coverage": "answers with all skills (by words)",
    "finished": "answers that ended by themselves",
    "mean_length": "mean answer, characters",
    "mean_tokens": "mean answer, tokens",
    "word_entropy": "variety of words",
}
PERCENT = ("win_rate", "lc_win_rate", "skill_coverage", "finished")
GAIN = "preference_gain"
# Measures of a clustering that are numbers of things.
COUNTED = {"skills", "clusters", "rare_skills"}


def collect(context: Context) -> dict[str, Any]:
    """Facts by name; lists of row dicts where the corpus has rows."""
    store, config = context.store, context.config
    query = store.query
    return {
        "run": query("SELECT * FROM run")[0],
        "config": config,
        "self_judged": bool(config.judge.same_as) or config.judge.path == config.teacher.path != "",
        "rehearsal": config.is_rehearsal(),
        "stages": query(_STAGES),
        "warnings": query(
            "SELECT stage, detail->>'problem' AS problem FROM event WHERE kind = 'warning' "
            "ORDER BY happened_at"
        ),
        "assets": query("SELECT * FROM asset ORDER BY role"),
        "books": query("SELECT * FROM books"),
        "tokens": query("SELECT * FROM tokens"),
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
        "dataset": query("SELECT * FROM dataset_stats"),
        "rejections": query("SELECT * FROM rejections LIMIT 12"),
        "rejected": rejected_examples(store),
        "counts": query(
            "SELECT (SELECT count(*) FROM topic) AS topics, "
            "(SELECT count(*) FROM skill_label) AS labels, (SELECT count(*) FROM skill) AS skills, "
            "(SELECT count(*) FROM skill WHERE rare) AS rare, "
            "(SELECT count(*) FROM cluster WHERE size > 1) AS clusters, "
            "(SELECT count(*) FROM query_type) AS query_types"
        )[0],
        "skills": query("SELECT * FROM skill_coverage"),
        "clusters": query("SELECT * FROM cluster ORDER BY size DESC, name"),
        "map": query(
            "SELECT s.map_x, s.map_y, s.rare, cl.name AS cluster, cl.size FROM skill s "
            "JOIN cluster cl USING (cluster_id) WHERE s.map_x IS NOT NULL ORDER BY s.name"
        ),
        "quality": [
            {**row, "value": int(row["value"]) if row["metric"] in COUNTED else row["value"]}
            for row in query("SELECT * FROM cluster_quality ORDER BY metric")
        ],
        "cluster_members": query(
            "SELECT cl.name, cl.size, string_agg(s.name, ', ' ORDER BY s.count DESC, s.name) "
            "AS members FROM cluster cl JOIN skill s USING (cluster_id) WHERE cl.size > 1 "
            "GROUP BY ALL ORDER BY cl.size DESC, cl.name LIMIT 12"
        ),
        "query_types": query("SELECT * FROM query_type_coverage WHERE split = 'train'"),
        "checkpoints": query("SELECT * FROM checkpoint_curve WHERE training = 'main'"),
        "criteria": query("SELECT * FROM picks WHERE training = 'main'"),
        "judge": query("SELECT * FROM score WHERE model_id = 'judge' ORDER BY metric"),
        "scores": query(
            "SELECT * FROM score WHERE split = 'test' AND model_id NOT IN"
            " (SELECT checkpoint_id FROM checkpoint WHERE training <> 'main')"
        ),
        "examples": query(_EXAMPLES),
        "duels": query(_DUELS),
        "refused": offline.refused_connections(context.folder),
    }


# The time of the call that finished a stage; an interrupted stage took longer in all. A stage that
# has been started again since, as the report is while it is written, keeps its earlier figures.
_STAGES = """
WITH finished AS (
    SELECT stage, max(happened_at) AS at, arg_max(detail->>'summary', happened_at) AS summary
    FROM event WHERE kind = 'stage_finished' GROUP BY stage
)
SELECT e.stage, any_value(f.summary) AS summary, count(*) AS calls, min(e.happened_at) AS began,
       epoch(any_value(f.at)) - epoch(max(e.happened_at) FILTER (e.happened_at <= f.at)) AS seconds
FROM event e LEFT JOIN finished f USING (stage)
WHERE e.kind = 'stage_started' GROUP BY e.stage ORDER BY began
"""

_EXAMPLES = """
SELECT c.instruction, c.response, string_agg(s.name, ', ' ORDER BY ms.position) AS skills,
       any_value(q.name) AS query_type, m.mix_id
FROM candidate c JOIN mix m USING (mix_id) JOIN mix_skill ms USING (mix_id)
JOIN skill s USING (skill_id) LEFT JOIN query_type q USING (query_type_id)
WHERE c.status = 'accepted' AND m.split = 'train'
GROUP BY m.ordinal, m.mix_id, c.instruction, c.response ORDER BY m.ordinal LIMIT 3
"""

# Test items at the 10th, 50th and 90th percentile of the picked model's preference, so that what
# is shown is neither the best nor the worst that could be found (with a dozen items or more).
_DUELS = """
WITH judged AS (
    SELECT a.mix_id, a.text AS picked, avg(j.preference) AS preference
    FROM answer a JOIN checkpoint k ON k.checkpoint_id = a.model_id AND k.picked
     AND k.training = 'main' JOIN judgment j USING (answer_id) WHERE a.split = 'test' GROUP BY ALL
    HAVING avg(j.preference) IS NOT NULL
), placed AS (
    SELECT *, row_number() OVER (ORDER BY preference, mix_id) AS place, count(*) OVER () AS n
    FROM judged
)
SELECT c.instruction, c.response AS reference, p.picked, p.preference, b.text AS base
FROM placed p JOIN candidate c USING (mix_id)
LEFT JOIN answer b ON b.mix_id = p.mix_id AND b.model_id = 'base'
WHERE place IN (greatest(1, round(0.1 * n)), greatest(1, round(0.5 * n)), round(0.9 * n))
ORDER BY place
"""


# Where nothing could be parsed, the reply itself is shown.
_REJECTED = """
WITH out AS (
    SELECT v.gate, v.reason, c.mix_id, m.ordinal, coalesce(c.instruction, '') AS instruction,
           coalesce(c.response, t.text, '') AS response,
           row_number() OVER (PARTITION BY v.gate ORDER BY m.ordinal) AS place,
           count(*) OVER (PARTITION BY v.gate) AS n
    FROM verdict v JOIN candidate c USING (mix_id) JOIN mix m USING (mix_id)
    LEFT JOIN turn t USING (turn_id)
    WHERE NOT v.passed AND c.status = 'rejected'
)
SELECT gate, n, mix_id, reason,
       left(instruction, $long) || CASE WHEN len(instruction) > $long THEN ' …' ELSE '' END
           AS instruction,
       left(response, $long) || CASE WHEN len(response) > $long THEN ' …' ELSE '' END AS response
FROM out WHERE place <= $most ORDER BY n DESC, gate, place
"""


def rejected_examples(store: Store, most: int = 3, long: int = 400) -> list[Row]:
    """The first `most` rejected examples of each gate in the plan's order, n being how many it has.

    Instruction and response are cut to `long` characters; gates with most rejections come first.
    """
    query = _REJECTED.replace("$most", str(int(most))).replace("$long", str(int(long)))
    return store.query(query)


def picked_checkpoint(facts: dict[str, Any]) -> dict[str, Any] | None:
    """The row of the picked checkpoint."""
    return next((row for row in facts["checkpoints"] if row["picked"]), None)


def gain(facts: dict[str, Any]) -> dict[str, Any] | None:
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
    where = f"on {score['n']} unseen prompts ({interval})."
    if score["low"] <= 0 <= score["high"]:
        return f"Epoch {picked['epoch']} cannot be told from the base model {where}"
    direction = "beats" if score["value"] > 0 else "falls behind"
    points = f"{abs(score['value']):.1f} points of preference"
    return f"Epoch {picked['epoch']} {direction} the base model by {points} {where}"


def test_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Test scores in display order, labelled model and metric."""
    models = sorted(
        {row["model_id"] for row in facts["scores"] if row["metric"] in METRICS},
        key=lambda name: name == "base",
    )
    index = {(row["model_id"], row["metric"]): row for row in facts["scores"]}
    return [
        {**index[model, metric], "label": f"{model}: {METRICS[metric]}"}
        for metric in METRICS
        for model in models
        if (model, metric) in index
    ]
