"""Watts of this machine: a GPU's tool that says what it is told, and counters that turn over."""

import asyncio
from pathlib import Path

import pytest

from localism.power import Meter, Sample, gpu_watts, package_energy, package_watts


def put_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str, code: int = 0) -> None:
    """An nvidia-smi that prints this."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{says}'\nexit {code}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def put_package(powercap: Path, name: str, counter: int | str, size: int = 1_000_000) -> None:
    zone = powercap / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "name").write_text(f"{'core' if name.count(':') > 1 else 'package-0'}\n")
    (zone / "energy_uj").write_text(f"{counter}\n")
    (zone / "max_energy_range_uj").write_text(f"{size}\n")


def test_gpus_are_summed(tmp_path, monkeypatch):
    put_tool(tmp_path, monkeypatch, "301.25\\n298.75\\n")
    assert gpu_watts() == 600.0


@pytest.mark.parametrize(
    ("says", "code"), [("[N/A]\\n", 0), ("", 0), ("100.0\\n[N/A]\\n", 0), ("no driver", 9)]
)
def test_a_tool_that_does_not_say_gives_nothing_rather_than_a_part(
    tmp_path, monkeypatch, says, code
):
    put_tool(tmp_path, monkeypatch, says, code)
    assert gpu_watts() is None


def test_packages_are_read_and_their_parts_are_not_counted_twice(tmp_path):
    put_package(tmp_path, "intel-rapl:0", 5)
    put_package(tmp_path, "intel-rapl:0:0", 3)
    put_package(tmp_path, "intel-rapl:1", "damaged")
    assert package_energy(tmp_path) == {"intel-rapl:0": (5, 1_000_000)}
    assert package_energy(tmp_path / "absent") == {}


def test_a_counter_that_turns_over_goes_on_counting():
    samples = [
        Sample(0.0, None, {"a": (900_000, 1_000_000), "b": (0, 1_000_000)}),
        Sample(2.0, None, {"a": (100_000, 1_000_000), "b": (400_000, 1_000_000)}),
    ]
    assert package_watts(samples) == pytest.approx(0.3)
    assert package_watts(samples[:1]) is None


def measured(meter: Meter) -> None:
    async def run() -> None:
        task = asyncio.create_task(meter.run())
        await asyncio.sleep(0.3)
        task.cancel()

    asyncio.run(run())


def test_the_meter_says_what_it_measured(tmp_path, monkeypatch):
    put_tool(tmp_path, monkeypatch, "250.0\\n")
    meter = Meter(tmp_path / "absent")
    measured(meter)
    power = meter.between(0.0, 1e12)
    assert power.watts == 250.0 and "nvidia-smi" in power.source
    assert meter.between(0.0, 1.0).watts is None


def test_without_gpu_and_counters_the_power_is_unknown_and_the_reason_is_said(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    meter = Meter(tmp_path / "absent")
    measured(meter)
    power = meter.between(0.0, 1e12)
    assert power.watts is None and "RAPL" in power.source
