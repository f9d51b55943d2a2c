"""What a run takes from outside: noted once, and the same at every later call or refused."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from localism import weights
from localism.config import Config
from localism.errors import ConfigError
from localism.paths import embedded
from localism.prompting.packs import load_pack
from localism.records import stable_id
from localism.store import Row, Store


def record(store: Store, config: Config) -> None:
    """Note what came from outside; refuse to go on when it is not what the run started with."""
    if not store.value("SELECT count(*) FROM turn"):
        store.execute("DELETE FROM asset")  # nothing was made of them: a mended file is welcome
    for asset in _assets(config):
        pin(store, asset)


def pin(store: Store, asset: Row) -> None:
    """The first of its id is noted; ConfigError when a later one is another."""
    known = store.query("SELECT * FROM asset WHERE asset_id = ?", [asset["asset_id"]])
    if known and known[0]["fingerprint"] != asset["fingerprint"]:
        raise ConfigError(
            f"{asset['role']}: not what this run was started with",
            where=f"{asset['path']} (was {known[0]['path']})",
            fix="put the earlier one back, or start a new run with --run NEW",
        )
    store.add("asset", **asset)


def served(role: str, model: Mapping[str, Any], urls: Sequence[str]) -> Row:
    """The asset of a model behind endpoints, by what the server says of it.

    The weights cannot be seen from here. Its name and the last part of its root have to do: hosts,
    folders and the length limit may change while the model stays the same.
    """
    root = str(model.get("root") or "").rstrip("/").rpartition("/")[2]
    return {
        "asset_id": role,
        "role": role,
        "path": f"{model['id']} at {', '.join(urls)}",
        "fingerprint": stable_id("served", model["id"], root),
        "parameters": None,
        "bytes": None,
    }


def of_folder(role: str, path: str) -> Row:
    """The asset of a model folder."""
    folder = embedded(path)
    return {
        "asset_id": role,
        "role": role,
        "path": path,
        "fingerprint": weights.fingerprint(folder),
        "parameters": weights.parameter_count(folder),
        "bytes": weights.total_bytes(folder),
    }


def fingerprints(config: Config) -> dict[str, list[str]]:
    """Of what lies on this machine, by role."""
    found: dict[str, list[str]] = {}
    for asset in _assets(config):
        found.setdefault(asset["role"], []).append(asset["fingerprint"])
    return {role: sorted(every) for role, every in found.items()}


def _assets(config: Config) -> Iterator[Row]:
    for role in ("teacher", "judge", "student", "embedder"):
        section = config.embedder if role == "embedder" else config.served(role)
        if section.path:
            yield of_folder(role, section.path)
    pack = load_pack(config.prompts.pack)
    yield {
        "asset_id": "prompts",
        "role": "prompts",
        "path": config.prompts.pack,
        "fingerprint": pack.fingerprint,
        "parameters": None,
        "bytes": None,
    }
    taxonomy = config.extract.taxonomy
    sources = [("taxonomy", taxonomy)] if taxonomy else []
    sources += [("seeds", seeds.path) for seeds in config.extract.seeds]
    sources += [("benchmarks", path) for path in config.curate.benchmarks]
    for role, path in sources:
        yield {
            "asset_id": stable_id(role, path),
            "role": role,
            "path": path,
            "fingerprint": _content(embedded(path)),
            "parameters": None,
            "bytes": sum(file.stat().st_size for file in _files(embedded(path))),
        }


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _content(path: Path) -> str:
    """Hash of a file, or of every file of a folder with its name."""
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
