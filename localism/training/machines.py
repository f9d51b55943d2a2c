"""How several machines find each other for a training: files in a folder that all of them see.

    RUN/machines/call.json     the run's process: a training begins, and what it asks of the others;
                               gone when that is over
    RUN/machines/NAME.json     each other machine: that it takes part, or what stands against it
    RUN/machines/places.json   the run's process: who takes part, and as which machine

Whoever sees these files sees the data and writes to the same checkpoints. What then happens between
the machines is torch's own.
"""

import errno
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

MACHINES = "machines"
CALL, PLACES = "call.json", "places.json"
POLL_SECONDS = 0.5
LIBRARIES = ("localism", "torch", "transformers", "accelerate", "trl", "peft")


@dataclass(frozen=True)
class Call:
    """What a training asks of the other machines."""

    nonce: str
    """Different for each call."""
    job: str
    """The job's file."""
    address: str
    """HOST:PORT of the run's machine at which torch's launchers meet."""
    processes: int
    """Of each machine."""
    device: str
    """cpu or cuda."""
    model: str
    """Folder of the base model."""
    fingerprint: str
    """Of the base model."""
    versions: dict[str, str]
    """Of Python and the libraries."""


class SignIn(NamedTuple):
    """A machine that takes part, or says why it can't."""

    nonce: str
    """Of the call that it answers."""
    name: str
    """Of machine and process: HOST-PID."""
    problem: str
    """Why it can't take part; empty when it can."""


class Place(NamedTuple):
    """Where a machine is among those of a training."""

    machine: int
    """0 is that of the run's process."""
    address: str
    """HOST:PORT at which torch's launchers meet."""


def versions() -> dict[str, str]:
    """Of what has to be the same on all machines."""
    found = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return found | {"python": platform.python_version()}


def log_name(host: str) -> str:
    """Of a helping machine, under logs/ of the run."""
    return f"train-{host}.log"


# ---- the run's process ---------------------------------------------------------------------


def post(folder: Path, call: Call) -> None:
    """Begin: what earlier trainings left is removed, and the others are called."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    _write(folder / CALL, asdict(call))


def signed_in(folder: Path, nonce: str) -> list[SignIn]:
    """Who has answered a call, by name."""
    found = [_read(path) for path in sorted(folder.glob("*-*.json"))]
    return [SignIn(**one) for one in found if one and one["nonce"] == nonce]


def give_places(folder: Path, nonce: str, names: list[str]) -> None:
    """The machines that take part: number 1, 2 and so on."""
    places = {name: number for number, name in enumerate(names, 1)}
    _write(folder / PLACES, {"nonce": nonce, "places": places})


def withdraw(folder: Path) -> None:
    """End: whoever still works on the call stops."""
    (folder / CALL).unlink(missing_ok=True)


# ---- the other machines --------------------------------------------------------------------


def posted(folder: Path) -> Call | None:
    """The call that stands."""
    found = _read(folder / CALL)
    return Call(**found) if found else None


def sign_in(folder: Path, answer: SignIn) -> None:
    """Answer a call."""
    _write(folder / f"{answer.name}.json", answer._asdict())


def sign_out(folder: Path, name: str) -> None:
    """Take the answer back."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def place_of(folder: Path, nonce: str, name: str) -> int | None:
    """Which machine this one is to be: 0 when it is not needed, None while that is not known."""
    found = _read(folder / PLACES)
    if not found or found["nonce"] != nonce:
        return None
    place: int = found["places"].get(name, 0)
    return place


# ---- files ---------------------------------------------------------------------------------


def _write(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)  # whole for every reader


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    except OSError as error:
        # A network file system has a name of its own for a file that was just replaced.
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
