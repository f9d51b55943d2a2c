"""The air gap: the environment of this process and its children, and the guard on their sockets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localism import egress

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
    "TOKENIZERS_PARALLELISM": "false",
}


def close_air_gap(folder: Path, endpoints: Sequence[str] = ()) -> None:
    """Close it for this process and, through child_environment, for all that it starts.

    `endpoints` are base URLs of model servers that the configuration names: the only hosts beside
    this machine that may be reached. Refused attempts are recorded in the run folder.
    """
    hosts = sorted({urlsplit(url).hostname or "" for url in endpoints} - {""})
    os.environ.update(AIR_GAP)
    os.environ[egress.LOG_VARIABLE] = str((folder / LOG).resolve())
    os.environ[egress.ALLOWED_VARIABLE] = ",".join(hosts)
    egress.install((folder / LOG).resolve(), hosts)


def child_environment(folder: Path) -> dict[str, str]:
    """os.environ for a child of this run: offline, and guarded from its first line of Python."""
    environment = {**os.environ, **AIR_GAP}
    environment.setdefault(egress.LOG_VARIABLE, str((folder / LOG).resolve()))
    guard = str(Path(__file__).parent / "airgap_site")
    others = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and p != guard]
    environment["PYTHONPATH"] = os.pathsep.join([guard, *others])
    return environment


def refused_connections(folder: Path) -> list[dict[str, Any]]:
    """Every connection that the guard refused during a run."""
    return egress.attempts(folder / LOG)
