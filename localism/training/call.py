"""What a training asks of the other machines, in the folder that they share (localism.machines).

    RUN/machines/call.json     the run's process: a training begins, and what it asks of the others;
                               gone when that is over
    RUN/machines/NAME.json     each other machine: that it takes part, or what stands against it
    RUN/machines/places.json   the run's process: who takes part, and as which machine

Whoever sees these files sees the data and writes to the same checkpoints. What then happens between
the machines is torch's own.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from localism import machines

CALL, PLACES = "call.json", "places.json"
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


class Place(NamedTuple):
    """Where a machine is among those of a training."""

    machine: int
    """0 is that of the run's process."""
    address: str
    """HOST:PORT at which torch's launchers meet."""


def log_name(host: str) -> str:
    """Of a helping machine, under logs/ of the run."""
    return f"train-{host}.log"


# ---- the run's process ---------------------------------------------------------------------


def post(folder: Path, call: Call) -> None:
    """Begin: what earlier trainings left is removed, and the others are called."""
    machines.begin(folder)
    machines.write(folder / CALL, asdict(call))


def give_places(folder: Path, nonce: str, names: list[str]) -> None:
    """The machines that take part: number 1, 2 and so on."""
    places = {name: number for number, name in enumerate(names, 1)}
    machines.write(folder / PLACES, {"nonce": nonce, "places": places})


def withdraw(folder: Path) -> None:
    """End: whoever still works on the call stops."""
    (folder / CALL).unlink(missing_ok=True)


# ---- the other machines --------------------------------------------------------------------


def posted(folder: Path) -> Call | None:
    """The call that stands."""
    found = machines.read(folder / CALL)
    return Call(**found) if found else None


def place_of(folder: Path, nonce: str, name: str) -> int | None:
    """Which machine this one is to be: 0 when it is not needed, None while that is not known."""
    found = machines.read(folder / PLACES)
    if not found or found["nonce"] != nonce:
        return None
    place: int = found["places"].get(name, 0)
    return place
