"""An engine over several machines, without Ray: sizes, addresses, calls, and what is told."""

import asyncio
import importlib.util
import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import embedded_config

from localism import egress, lock, machines, weights, worker
from localism.config import Teacher
from localism.errors import ConfigError, MachineError
from localism.gpus import Device, Gpus, of_devices
from localism.paths import embedded
from localism.records import LOCK
from localism.serving import ray_call, ray_node, ray_worker
from localism.serving.memory import needed
from localism.serving.placement import Placement, over_machines, place
from localism.serving.ray_call import RayCall
from localism.serving.ray_cluster import Cluster

MODEL = embedded("embedded:teacher")
EIGHT = of_devices([Device(str(number), "", 80 * 10**9, 0) for number in range(8)])
CALL = RayCall(
    nonce="n", address="10.0.0.1:6379", key="k" * 64, temporary="/tmp/x", gpus=8,
    model=str(MODEL), fingerprint=weights.fingerprint(MODEL),
    versions=machines.versions(ray_call.LIBRARIES),
)  # fmt: skip


# ---- sizes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "gpus", "sizes"),
    [
        ({"nodes": 2}, EIGHT, (8, 2, 1, 8)),
        ({"nodes": 4, "pipeline_parallel": 2}, EIGHT, (16, 2, 1, 8)),
        ({"nodes": 2, "data_parallel": 2}, EIGHT, (8, 1, 2, 8)),
        ({"nodes": 2, "data_parallel": 8, "tensor_parallel": 2}, EIGHT, (2, 1, 8, 8)),
        ({"nodes": 2, "tensor_parallel": 4}, EIGHT, (4, 2, 1, 4)),
        ({"nodes": 2}, Gpus(0, None), (1, 2, 1, 1)),
    ],
)
def test_a_copy_shares_a_machines_gpus_and_its_layers_go_over_machines(keys, gpus, sizes):
    found = over_machines(None, Teacher(path="x", **keys), gpus, "teacher")
    assert (found.tensor, found.pipeline, found.data, found.gpus_here) == sizes
    assert f"over {keys['nodes']} machines" in found.said()


@pytest.mark.parametrize(
    ("keys", "kind", "problem"),
    [
        ({"nodes": 2, "tensor_parallel": 16}, MachineError, "16 GPUs of each machine"),
        ({"nodes": 2, "data_parallel": 3, "tensor_parallel": 2}, ConfigError, "evenly"),
        ({"nodes": 3, "pipeline_parallel": 1, "tensor_parallel": 4}, ConfigError, "evenly"),
    ],
)
def test_sizes_that_do_not_fit_the_machines_are_named(keys, kind, problem):
    with pytest.raises(kind, match=problem) as error:
        over_machines(None, Teacher(path="x", **keys), EIGHT, "teacher")
    assert "[teacher].nodes" in error.value.where


def test_a_model_too_large_for_a_machine_goes_on_two_and_a_larger_one_is_refused():
    tiny = needed(MODEL, Teacher(path="x"))
    layers = replace(tiny.layers, heads=64, kv_heads=8, widths=(), vocabulary=128_000)
    large = replace(tiny, weights=810 * 10**9, layers=layers)
    assert place(large, Teacher(path="x", nodes=2), EIGHT, "teacher").gpus == 16
    with pytest.raises(MachineError, match="do not fit on 16 GPUs") as error:
        place(replace(large, weights=2 * 10**12), Teacher(path="x", nodes=2), EIGHT, "teacher")
    assert "[teacher].nodes" in error.value.fix


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("student", {"nodes": 2}),
        ("teacher", {"nodes": 2, "path": "", "endpoints": ("http://a:1/v1",)}),
        ("teacher", {"pipeline_parallel": 2}),
        ("teacher", {"nodes": 2, "rendezvous": "a b"}),
    ],
)
def test_what_cannot_be_spread_is_refused_before_anything_starts(section, keys):
    with pytest.raises(ConfigError):
        embedded_config(**{section: keys})


# ---- Ray on a machine ----------------------------------------------------------------------


def test_ray_is_started_without_dashboard_statistics_or_a_port_for_clients():
    head, other = (ray_node.command(CALL, "10.0.0.1", is_head=is_head) for is_head in (True, False))
    assert {"--head", "--port=6379", "--include-dashboard=false", "--no-monitor"} <= set(head)
    assert "--disable-usage-stats" in head and "--num-gpus=8" in head
    assert "--address=10.0.0.1:6379" in other and "--head" not in other
    assert not any(CALL.key in word for word in (*head, *other)), "every user can read arguments"
    variables = ray_node.variables(CALL, "10.0.0.2")
    assert variables["RAY_AUTH_MODE"] == "token" and variables["RAY_AUTH_TOKEN"] == CALL.key
    assert variables["VLLM_HOST_IP"] == "10.0.0.2"


def test_the_heads_address_is_one_of_this_machine_that_others_reach(monkeypatch):
    monkeypatch.setattr(egress, "own_addresses", lambda: {"127.0.0.1", "10.0.0.7", "::1"})
    known = {"node7": "10.0.0.7", "other": "10.0.0.9", socket.gethostname(): "127.0.1.1"}

    def look_up(name: str) -> str:
        if name not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return known[name]

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    assert ray_node.head_address("node7:29400", "teacher") == "10.0.0.7:29400"
    for wrong in ("other:1", "nobody:1"):
        with pytest.raises(MachineError, match="do not reach this one") as error:
            ray_node.head_address(wrong, "judge")
        assert "[judge].rendezvous" in error.value.where and "10.0.0.7" in error.value.fix
    monkeypatch.setattr(ray_node, "_free_port", lambda address: 4)
    assert ray_node.head_address("", "teacher") == "10.0.0.7:4", "Debian's 127.0.1.1 is no address"
    monkeypatch.setattr(egress, "own_addresses", lambda: {"127.0.0.1", "10.0.0.7", "10.1.0.7"})
    with pytest.raises(MachineError, match="which is 127.0.1.1") as error:
        ray_node.head_address("", "teacher")
    assert "10.0.0.7, 10.1.0.7" in error.value.fix


# ---- calls ---------------------------------------------------------------------------------


def test_the_call_with_the_key_is_for_the_user_alone(tmp_path: Path):
    ray_call.post(tmp_path, CALL)
    file = ray_call.folder(tmp_path) / ray_call.CALL
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ray_call.posted(tmp_path) == CALL and ray_call.stands(tmp_path, CALL)
    assert not ray_call.stands(tmp_path, replace(CALL, nonce="later"))
    ray_call.withdraw(tmp_path)
    assert ray_call.posted(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"versions": CALL.versions | {"vllm": "0.1"}}, "vllm 0.1"),
        ({"fingerprint": "f"}, "another model, or none"),
        ({"model": "/nowhere"}, "can't be read|another model"),
    ],
)
def test_a_machine_that_differs_signs_in_with_what_stands_against_it(tmp_path, changes, problem):
    call = replace(CALL, **changes)
    ray_call.post(tmp_path, call)
    with pytest.raises(MachineError, match=problem):
        worker.serve_once(tmp_path, call.nonce, lambda line: None)
    (answer,) = machines.signed_in(ray_call.folder(tmp_path), call.nonce)
    compared = (call.versions, call.model, call.fingerprint, "model")
    assert answer.problem == machines.stands_against(*compared)


# ---- the cluster ---------------------------------------------------------------------------


def cluster(new_context: Any, **keys: Any) -> tuple[Cluster, Path]:
    context = new_context(embedded_config(teacher={"nodes": 2, **keys}))
    return Cluster(context, "teacher", 1), context.folder


def test_a_machine_leaves_a_run_whose_process_was_killed(tmp_path: Path):
    assert not ray_worker.is_abandoned(tmp_path)  # not begun
    with lock.held(tmp_path, print):
        pass
    assert not ray_worker.is_abandoned(tmp_path)
    killed = time.time() - lock.ALIVE_SECONDS - 10
    os.utime(tmp_path / LOCK, (killed, killed))
    assert ray_worker.is_abandoned(tmp_path)


def test_without_ray_the_fix_is_to_install_it_everywhere(new_context, monkeypatch):
    one, folder = cluster(new_context)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="Ray, which is not installed") as error:
        asyncio.run(one.ready(MODEL))
    assert "on every machine" in error.value.fix and "requirements/ray.txt" in error.value.fix
    one.stop()
    assert ray_call.posted(folder) is None


def test_more_machines_than_slurm_gave_is_said_before_ray_starts(
    new_context, monkeypatch, tmp_path
):
    one, _ = cluster(new_context, nodes=3)
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for name, value in {
        "PATH": str(tmp_path), "SLURM_JOB_NODELIST": "a,b", "SLURMD_NODENAME": "a",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="3 machines and Slurm gave 2"):
        asyncio.run(one.ready(MODEL))


def test_vllm_is_told_to_use_ray_and_how_many_copies_are_here(new_context):
    one, _ = cluster(new_context)
    one._call = CALL
    assert one.arguments(Placement(8, 2, 1, "", 2)) == [
        "--distributed-executor-backend", "ray", "--pipeline-parallel-size", 2,
    ]  # fmt: skip
    words = one.arguments(Placement(2, 1, 8, "", 2))
    assert words[-4:] == ["--data-parallel-address", "10.0.0.1", "--data-parallel-size-local", 4]
