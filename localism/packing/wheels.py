"""The wheels of a lock into the pack, by pip."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from localism.errors import ConfigError, StageError

# What a wheel for Linux x86_64 may call itself, newest first; pip takes none that is not named.
PLATFORMS = (
    "manylinux_2_31_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64",
    "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
    "manylinux_2_12_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64",
)  # fmt: skip


def locks(kind: str, *, with_tests: bool) -> list[Path]:
    """The locks of a kind of machine: gpu or cpu, and with the tests' own tools."""
    folder = Path(__file__).parents[2] / "requirements"
    names = [f"{kind}.txt", "lm-eval.txt"]
    names += ["ray.txt"] if kind == "gpu" or with_tests else []
    names += ["dev.txt"] if with_tests else []
    return [folder / name for name in names if (folder / name).exists()]


def fetch(
    kind: str, wheels: Path, *, python: str | None, torch_index: str | None, with_tests: bool
) -> list[Path]:
    """Download what is missing of the locks' wheels; those that are wanted, in order.

    kind: gpu or cpu. python: for instance 3.12, where the machine inside has another than this one.
    Raises StageError with pip's own words, ConfigError for the CUDA build of torch in a pack for
    machines without a GPU.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    requirements = locks(kind, with_tests=with_tests)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(wheels)]
    command += list(_target(python))
    torch = next(line for line in _lines(requirements[0]) if line.startswith("torch=="))
    # torch first and alone, as `make setup` does: only it may come from that index.
    index = ["--extra-index-url", torch_index] if torch_index else []
    _pip([*command, *index, torch])
    if kind == "cpu":
        _check_torch(wheels)
    _pip([*command, *(part for lock in requirements for part in ("-r", str(lock)))])
    return wanted(wheels, requirements)


def wanted(wheels: Path, requirements: Sequence[Path]) -> list[Path]:
    """The wheels in a folder that these locks name; StageError for one that is not there."""
    found = {_key(*path.name.split("-")[:2]): path for path in sorted(wheels.glob("*.whl"))}
    paths = []
    for lock in requirements:
        for name, version in pins(lock).items():
            if (key := _key(name, version)) not in found:
                raise StageError(
                    f"pip left no wheel for {name} {version}",
                    where=str(wheels),
                    fix="run the same command again",
                )
            paths.append(found[key])
    return list(dict.fromkeys(paths))


def pins(lock: Path) -> dict[str, str]:
    """Name -> version of what a lock names."""
    pairs = (line.partition(";")[0].strip().partition("==") for line in _lines(lock))
    return {name: version for name, _, version in pairs}


def _key(name: str, version: str) -> tuple[str, str]:
    """Wheel names write - and . as _, and torch's version says +cpu behind a plus."""
    plain = name.partition("[")[0].lower().replace("-", "_").replace(".", "_")
    return plain, version.partition("+")[0]


def _lines(lock: Path) -> Iterator[str]:
    for line in lock.read_text().split("\n"):
        if line.strip() and not line.lstrip().startswith(("#", "-")):
            yield line.partition(" #")[0].strip()


def _target(python: str | None) -> Iterator[str]:
    if python is None:
        return
    yield from ("--python-version", python, "--implementation", "cp")
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        yield from ("--abi", abi)
    for platform in PLATFORMS:
        yield from ("--platform", platform)


def _check_torch(wheels: Path) -> None:
    for path in wheels.glob("torch-*.whl"):
        if "+cpu" not in path.name:
            path.unlink()
            raise ConfigError(
                "this is the CUDA build of torch, and the pack is for machines without a GPU",
                where=path.name,
                fix="--torch-index URL (PyTorch's index of CPU wheels), or --for gpu",
            )


def _pip(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.split("\n") if "ERROR" in line or "error" in line]
        raise StageError(
            "pip could not download the wheels",
            where="\n       ".join(errors[-3:] or done.stderr.strip().split("\n")[-3:]),
            fix="check the network and the disk, then run the same command again: what is there "
            "is kept",
        )
