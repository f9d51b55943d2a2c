"""The air gap: the environment of this process and its children, and the guard on their sockets."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localism import egress
from localism.errors import ConfigError

LOG = "egress.jsonl"

# Each of these looks something up, reports usage or asks for an address unless told not to.
AIR_GAP = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
}

# A proxy of the environment would carry a request out: one on this machine looks like loopback.
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "ws_proxy", "wss_proxy", "all_proxy")


def close_air_gap(folder: Path, hosts: Collection[str] = (), child: str = "") -> None:
    """Close it for this process and, through child_environment, for all that it starts.

    `hosts`: names and addresses that the configuration names (recipe.named_hosts), the only ones
    beside this machine that may be reached. `child`: as of child_environment. Refused attempts are
    recorded in the run folder.
    """
    os.environ[egress.ALLOWED_VARIABLE] = ",".join(sorted(hosts))
    is_at(child)
    # In our own environment too: libraries start workers (joblib, datasets) without asking us.
    environment = child_environment(folder)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    egress.install(_log(folder), hosts)


def is_at(stage: str) -> None:
    """What this process does from now on, for attempts of its own and of unnamed children."""
    os.environ[egress.CHILD_VARIABLE] = stage


def child_environment(folder: Path, child: str = "") -> dict[str, str]:
    """os.environ for a child of this run: offline, and guarded from its first line of Python.

    `child` says in the report whose attempts were refused: "train: trainer".
    """
    environment = {**os.environ, **AIR_GAP, egress.LOG_VARIABLE: str(_log(folder))}
    if child:
        environment[egress.CHILD_VARIABLE] = child
    for name in _proxies(environment):
        del environment[name]
    guard = str(Path(__file__).parent / "airgap_site")
    inherited = environment.get("PYTHONPATH")
    # An empty entry stays: it means the working folder.
    others = [path for path in inherited.split(os.pathsep) if path != guard] if inherited else []
    environment["PYTHONPATH"] = os.pathsep.join([guard, *others])
    # Else `python -m vllm` would import a datasets.py of the working folder for the library.
    environment["PYTHONSAFEPATH"] = "1"
    return environment


def run_of(environment: Mapping[str, str]) -> Path | None:
    """The folder of the run that a process with this environment is a child of."""
    log = environment.get(egress.LOG_VARIABLE)
    return Path(log).parent if log else None


def refused_connections(folder: Path) -> list[dict[str, Any]]:
    """Every connection that the guard refused during a run."""
    return egress.attempts(folder / LOG)


def _log(folder: Path) -> Path:
    return (folder / LOG).resolve()


def _proxies(environment: Mapping[str, str]) -> list[str]:
    return [name for name in environment if name.lower() in PROXIES]


def host_of(url: str) -> str:
    """The host of an endpoint's base URL; ConfigError for what is none."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        raise ConfigError(
            "an endpoint is not a base URL",
            where=f"endpoints = [{url!r}]",
            fix="write it in full, for instance http://node1:8000/v1",
        )
    return host
