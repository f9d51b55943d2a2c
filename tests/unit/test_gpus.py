"""GPUs as CUDA shows them: numbers, UUIDs, slices, machines without figures. A made nvidia-smi."""

from pathlib import Path

import pytest

from localism import gpus
from localism.errors import MachineError
from localism.gpus import Device, find_gpus, slices, visible

GIB = 2**30
LISTED = """\
0, GPU-aaaa1111-0000, 81559, 4, Disabled
1, GPU-bbbb2222-0000, 40960, 70000, Disabled
2, GPU-bbcc3333-0000, 81559, 0, Disabled
"""
SLICES = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa1111-0000)
  MIG 3g.20gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 1c.2g.10gb  Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb2222-0000)
"""
CUT = "0, GPU-aaaa1111-0000, 40960, 4, Enabled\n1, GPU-bbbb2222-0000, 40960, 4, Disabled\n"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """nvidia_smi(script): a program of that name which runs the shell script."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0")

    def make(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return make


def listing(text: str, of_slices: str = "") -> str:
    return f"case $1 in -L) cat <<'L'\n{of_slices}\nL\n;; *) cat <<'G'\n{text}\nG\n;; esac"


@pytest.mark.parametrize(
    ("variable", "names", "smallest"),
    [
        (None, ["0", "1", "2"], 40960),
        ("2,0", ["2", "0"], 81559),
        (" 1 ", ["1"], 40960),
        ("GPU-bbcc,GPU-aaaa1111-0000", ["GPU-bbcc", "GPU-aaaa1111-0000"], 81559),
        ("0,7,2", ["0"], 81559),  # CUDA stops at the first that is not there
        ("0,-1,2", ["0"], 81559),
        ("2,0,2", ["2", "0"], 81559),
        ("", [], None),
        ("-1", [], None),
        ("none", [], None),
    ],
)
def test_gpus_are_those_that_cuda_would_show(nvidia_smi, variable, names, smallest):
    nvidia_smi(listing(LISTED))
    found = find_gpus({} if variable is None else {"CUDA_VISIBLE_DEVICES": variable})
    assert [device.name for device in found.devices] == names and found.number == len(names)
    assert found.memory == (smallest and smallest * 2**20)


def test_of_slices_a_process_sees_one(nvidia_smi):
    nvidia_smi(listing(CUT, SLICES))
    first, second = slices(SLICES)
    assert (first.memory, second.memory) == (int(19 * GIB), int(9.5 * GIB))
    assert find_gpus({}).devices[0].name == "1", "the whole one"
    asked = {"CUDA_VISIBLE_DEVICES": f"{second.uuid},{first.uuid}"}
    assert find_gpus(asked).devices == (second,)
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "0"}).number == 0, "nobody gets it whole"
    nvidia_smi(listing(CUT.splitlines()[0], SLICES))
    assert find_gpus({}).devices == (first,)


@pytest.mark.parametrize(
    ("script", "number"),
    [
        (listing("0, GPU-1, [N/A], [N/A], [N/A]"), 1),
        ("echo 'NVIDIA-SMI has failed'; exit 9", 0),
        ("echo 'NVIDIA-SMI has failed because it could not communicate, with, the, driver'", 0),
        ("printf '\\377\\376\\000garbage\\n0, GPU-1'", 0),
        ("true", 0),
    ],
)
def test_an_answer_without_figures_is_no_figure(nvidia_smi, script, number):
    nvidia_smi(script)
    found = find_gpus({})
    assert (found.number, found.memory) == (number, None)


def test_a_driver_that_hangs_is_an_error(nvidia_smi, monkeypatch):
    monkeypatch.setattr(gpus, "ANSWER_SECONDS", 0.3)
    nvidia_smi("exec sleep 30")
    with pytest.raises(MachineError, match="has not answered") as hangs:
        find_gpus({})
    assert "Xid" in hangs.value.fix


def test_without_nvidia_smi_the_variable_is_believed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0")
    assert find_gpus({}).number == 0
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "0,3"}).devices[1].name == "3"
    assert visible([], "") == []


def test_the_cpu_build_of_torch_uses_no_gpu(nvidia_smi, monkeypatch):
    nvidia_smi(listing(LISTED))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0+cpu")
    assert find_gpus({"CUDA_VISIBLE_DEVICES": "0"}).number == 0


def test_a_part_of_unequal_gpus_has_the_memory_of_its_own_smallest():
    found = gpus.of_devices([Device(str(n), f"GPU-{n}", n * GIB, 0) for n in (10, 20, 30)])
    assert found.part(1, 2).memory == 20 * GIB and found.part(1, 9).number == 2
