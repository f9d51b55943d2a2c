"""Ray over two machines for one engine: brought up through an srun of ours, and gone afterwards.

What vLLM does with it takes minutes: benchmarks/nodes.py.
"""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import netns
import pytest

from localism.recipe import RECIPE

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(
        netns.reason_not_joined() is not None,
        reason=f"no joined network namespaces here: {netns.reason_not_joined()}",
    ),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="Ray is not installed: pip install --no-deps -r requirements/ray.txt",
    ),
]

# The run's process: everything that an engine does before and after vLLM.
PROGRAM = """
import asyncio, io, json, sys
from pathlib import Path
from localism import offline
from localism.context import Context
from localism.models_toml import validate
from localism.paths import embedded
from localism.progress import Progress
from localism.serving.ray_cluster import Cluster
from localism.store import Store

folder, address = Path(sys.argv[1]), sys.argv[2]
config = validate({
    "teacher": {"path": "embedded:teacher", "nodes": 2, "rendezvous": address},
    "judge": {"same_as": "teacher"}, "student": {"path": "embedded:student"},
}, "test")
offline.close_air_gap(folder)
with Store(folder / "corpus.duckdb") as store:
    context = Context(config, store, folder, Progress(io.StringIO(), plain=True))
    cluster = Cluster(context, "teacher", 1)
    try:
        asyncio.run(cluster.ready(embedded("embedded:teacher")))
        print(json.dumps(cluster.environment()), flush=True)
        sys.stdin.readline()
    finally:
        cluster.stop()
"""


def of_ray(machine: netns.Machine) -> list[int]:
    return [
        pid
        for name in ("raylet", "gcs_server", "ray_start", "ray::", "keeper")
        for pid in netns.processes(machine, name)
    ]


def test_slurms_machines_are_one_ray_with_a_key_and_nothing_of_it_stays(tmp_path: Path) -> None:
    (tmp_path / RECIPE).write_text("{}")
    with netns.joined() as (own, other):
        srun = tmp_path / "bin/srun"
        srun.parent.mkdir()
        srun.write_text(
            "#!/bin/sh\nwhile case $1 in --*) true;; *) false;; esac; do shift; done\n"
            f'{" ".join(other.entrance)} "$@"; code=$?\n'
            f"echo ended with $code > {tmp_path}/srun.said; exit $code\n"
        )
        srun.chmod(0o755)
        slurm = {
            "PATH": f"{srun.parent}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": f"{socket.gethostname()},other",
            "SLURMD_NODENAME": socket.gethostname(),
        }
        words = [sys.executable, "-c", PROGRAM, str(tmp_path), own.address]
        program = subprocess.Popen(
            [*own.entrance, *words],
            env={**os.environ, **slurm},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        variables = json.loads(program.stdout.readline())
        key = variables["RAY_AUTH_TOKEN"]
        assert variables["VLLM_HOST_IP"] == own.address
        for machine in (own, other):
            assert netns.processes(machine, "raylet"), "Ray runs on both"
        assert not netns.processes(own, "dashboard.py"), "its only module reports to Ray's makers"
        assert not netns.processes(own, key) and not netns.processes(other, key)
        stranger = subprocess.run(
            [*other.entrance, sys.executable, "-m", "localism.serving.ray_look", "1", "1"],
            env={**os.environ, **variables, "RAY_AUTH_TOKEN": "f" * 64},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert stranger.returncode and not stranger.stdout, "Ray answers nobody without the key"
        program.communicate("stop\n", timeout=60)
        assert program.returncode == 0
        assert of_ray(own) == of_ray(other) == []
    assert (tmp_path / "srun.said").read_text() == "ended with 0\n"
    assert "as 10.213.77.2, for an engine" in (tmp_path / "logs/ray-slurm.log").read_text()
    assert list((tmp_path / "machines/engine").iterdir()) == [], "call and answers are gone"
    assert not (tmp_path / "egress.jsonl").exists(), "nothing else was spoken to"
