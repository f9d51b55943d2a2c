"""Training on a real GPU: a billion random parameters in bf16, by the benchmark's one command."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localism.gpus import find_gpus

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu_train.py"


def reason_without() -> str:
    if importlib.metadata.version("torch").endswith("+cpu"):
        return "torch is its CPU build"
    return "" if find_gpus({}).number else "nvidia-smi lists no GPU"


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(reason_without()), reason=f"no GPU: {reason_without()}"),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The benchmark's outcome; its swaps have been compared with fresh models by itself."""
    found = tmp_path_factory.mktemp("gpu") / "gpu_train.json"
    command = [sys.executable, str(BENCHMARK), "--steps", "8", "--to", str(found)]
    subprocess.run(command, check=True, timeout=850)
    outcome: dict[str, Any] = json.loads(found.read_text())
    return outcome


def test_a_billion_parameters_use_a_fair_share_of_the_gpu(measured: dict[str, Any]) -> None:
    assert measured["parameters"] > 1e9
    for one in measured["trainings"]:
        assert one["mfu"] is None or 0.15 < one["mfu"] < 0.8, one


def test_memory_is_within_the_estimate_and_not_far_below_it(measured: dict[str, Any]) -> None:
    """MEMORY_SHARE leaves a quarter of the estimate for what it does not know."""
    for one in measured["trainings"]:
        assert 0.6 < one["memory_gb"] / one["estimated_gb"] < 1.25, one


def test_the_loss_of_a_random_model_falls(measured: dict[str, Any]) -> None:
    for one in measured["trainings"]:
        first, last = one["loss"]
        assert last < first, one


def test_two_swaps_give_the_answers_of_fresh_models(measured: dict[str, Any]) -> None:
    assert len(measured["swaps"]["seconds"]) == 2
    assert measured["swaps"]["changed_by_training"] > 0, "else the swap showed nothing"
