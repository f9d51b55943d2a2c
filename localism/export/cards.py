"""The cards of exported data and models: facts from the corpus, told in Markdown.

Nothing of this machine is in them: models and files are called by the last part of their path.
"""

import json
from collections.abc import Sequence
from typing import Any

from localism import __version__
from localism.compare import Read
from localism.config import Config
from localism.export import model as models
from localism.export.rows import PROVENANCE, Row, TrainingSet, quoted
from localism.export.shapes import SHAPES, features, file_of
from localism.judging.calibration import kinship
from localism.licence_terms import by_id
from localism.licences import NOT_LEGAL_ADVICE, UNKNOWN, Licence, RunLicences
from localism.paths import shown

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def data_card(
    read: Read,
    config: Config,
    chosen: TrainingSet,
    forms: Sequence[str],
    kinds: Sequence[str],
    splits: list[Row],
    licences: RunLicences,
) -> str:
    """README.md of a data set's folder.

    Loaders are pointed to files of the first kind: datasets reads one kind from a folder.
    """
    total = sum(row["examples"] for row in splits)
    known = _of_run(read, config, licences)
    name = known["run"]["name"] + ("" if not chosen.kind else f"-{chosen.name}")
    return render(
        "dataset-card.md",
        **known,
        name=name,
        head=licence_head(licences.data),
        licence=licences.data,
        size=next((name for most, name in SIZES if total < most), "1M<n<10M"),
        languages=config.curate.languages,
        configs=[
            {
                "name": "default" if form == forms[0] else form,
                "form": form,
                "files": {row["split"]: file_of(form, row["split"], kinds[0]) for row in splits},
                "features": [json.dumps(feature) for feature in features(form)],
            }
            for form in forms
        ],
        kinds=kinds,
        columns={form: SHAPES[form].columns for form in forms},
        provenance=PROVENANCE,
        chosen=chosen,
        splits=splits,
        tokens_counted=all(row["response_tokens"] is not None for row in splits),
        total=total,
        gates=_gates(read, config),
        planned=_planned(read),
        trained=_trained_on_it(read, chosen),
    )


def model_card(
    read: Read, config: Config, chosen: TrainingSet, row: Row, licences: RunLicences
) -> str:
    """README.md of a model's folder."""
    known = _of_run(read, config, licences)
    training = "" if row["training"] == "main" else f"-{row['training']}"
    name = f"{known['run']['name']}{training}"
    prefix = licences.model.prefix
    if prefix and not name.lower().startswith(prefix.lower()):
        name = f"{prefix}-{name}"
    of_training = f"training = {quoted(row['training'])}"
    has_trainings = "training" in models.columns(read, "checkpoint")
    epochs = f"SELECT max(epoch) AS n FROM checkpoint{f' WHERE {of_training}' * has_trainings}"
    return render(
        "model-card.md",
        **known,
        name=name,
        head=licence_head(licences.model),
        licence=licences.model,
        base=shown(config.student.path),
        row=row,
        epochs=read(epochs)[0]["n"],
        tied=models.tie_set(read, row),
        chosen=chosen,
        examples=_examples(read, chosen),
        recipe=_training_recipe(read, row["training"]),
        scores=models.scores(read, row["checkpoint_id"]),
        base_scores=models.scores(read, "base"),
        benchmarks=[
            {**one, "judge": shown(one["judge"])}
            for one in models.benchmarks(read, row["checkpoint_id"])
        ],
        kinship=kinship(config),
    )


# ---- facts ---------------------------------------------------------------------------------


def _of_run(read: Read, config: Config, licences: RunLicences) -> dict[str, Any]:
    """What both cards say of the run."""
    return {
        "run": read("SELECT name, version, recipe_hash FROM run")[0],
        "version": __version__,
        "config": config,
        "judge": shown(config.judge.path) or ("the teacher" if config.judge.same_as else "served"),
        "rehearsal": config.is_rehearsal(),
        "assets": [_asset(row, licences) for row in read(_ASSETS)],
        "skills": read("SELECT (SELECT count(*) FROM skill) AS skills, "
                       "(SELECT count(*) FROM cluster WHERE size > 1) AS clusters")[0],
        "licences": licences,
        "parts": {_part(role): licence for role, licence in licences.roles.items()},
        "not_legal_advice": NOT_LEGAL_ADVICE,
    }  # fmt: skip


def _part(role: str) -> str:
    """'seeds /data/alpaca.json' -> 'seeds alpaca.json'."""
    kind, _, path = role.partition(" ")
    return f"{kind} {shown(path)}".strip()


_ASSETS = """
SELECT role, path, fingerprint, parameters FROM asset
ORDER BY list_position(['teacher', 'judge', 'student', 'embedder', 'prompts'], role), role, path
"""


def _asset(row: Row, licences: RunLicences) -> Row:
    """A model or file of the run as a card shows it."""
    key = f"seeds {row['path']}" if row["role"] == "seeds" else row["role"]
    found = licences.roles.get(key)
    return {
        **row,
        "path": ", ".join(shown(part) for part in row["path"].split(", ")),
        "licence": found.name if found else "",
    }


def _gates(read: Read, config: Config) -> list[Row]:
    """Each gate in its order and how many examples it removed; calls that failed come last."""
    rows = read("SELECT gate, sum(n)::BIGINT AS n FROM rejections GROUP BY gate")
    removed = {row["gate"]: row["n"] for row in rows}
    order = [*config.curate.gates, *(gate for gate in removed if gate not in config.curate.gates)]
    return [{"gate": gate, "removed": removed.get(gate, 0)} for gate in order]


def _planned(read: Read) -> Row:
    """Examples planned and accepted over all splits."""
    return read(
        "SELECT count(*) AS planned, count(*) FILTER (c.status = 'accepted') AS accepted"
        " FROM mix LEFT JOIN candidate c USING (mix_id)"
    )[0]


def _trained_on_it(read: Read, chosen: TrainingSet) -> Row | None:
    """What the run's training on this set came to: checkpoint and gain; None without a verdict."""
    there = models.columns(read, "checkpoint")
    training = "main" if not chosen.kind else chosen.name
    where = f"training = {quoted(training)}" if "training" in there else str(not chosen.kind)
    rows = read(f"SELECT checkpoint_id FROM checkpoint WHERE picked AND {where}") if there else []
    gain = models.scores(read, rows[0]["checkpoint_id"]).get("preference_gain") if rows else None
    return gain and {**gain, "checkpoint_id": rows[0]["checkpoint_id"]}


def _examples(read: Read, chosen: TrainingSet) -> int:
    """How many examples the set has to train on."""
    if not chosen.kind:
        sql = (
            "SELECT count(*) AS n FROM candidate JOIN mix USING (mix_id)"
            " WHERE status = 'accepted' AND split = 'train'"
        )
    else:
        sql = (
            f"SELECT count(*) AS n FROM set_example WHERE set_name = {quoted(chosen.name)}"
            " AND status = 'accepted'"
        )
    return int(read(sql)[0]["n"])


def _training_recipe(read: Read, training: str) -> str:
    """What the training derived from its settings, as it said when it began."""
    rows = read(
        "SELECT detail->>'derived' AS derived FROM event WHERE kind = 'recipe'"
        f" AND coalesce(detail->>'training', 'main') = {quoted(training)}"
        " ORDER BY happened_at DESC LIMIT 1"
    )
    return str(rows[0]["derived"]) if rows else ""


def licence_head(licence: Licence) -> dict[str, Any]:
    """license and license_name of a card's head."""
    ids = licence.card_id.split(" and ")
    if licence.card_id == UNKNOWN:
        return {"license": UNKNOWN}
    on_hub = [name if (terms := by_id(name)) and terms.is_on_hub else "other" for name in ids]
    head: dict[str, Any] = {"license": on_hub[0] if len(ids) == 1 else sorted(set(on_hub))}
    if "other" in on_hub:
        head["license_name"] = licence.card_id.replace(" ", "-")
    return head


# ---- rendering -----------------------------------------------------------------------------


def render(template: str, **values: Any) -> str:
    """Fill a packaged Markdown template."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("localism", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": _number, "cell": _cell, "json": json.dumps}
    return environment.get_template(template).render(**values)


def _number(value: Any, digits: int = 1) -> str:
    """A number for people; a missing one is a dash, never 0."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _cell(value: Any) -> str:
    """Text that can't break out of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")
