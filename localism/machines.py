"""How several machines find each other: files in a folder that all of them see.

The run's process writes what it asks of the others (training.call, serving.ray_call); each of them
answers beside it, in NAME.json, that it takes part, or what stands against it.
"""

import errno
import importlib.metadata
import json
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from localism import weights
from localism.errors import LocalismError

MACHINES = "machines"
"""Folder of a run that holds these files."""
POLL_SECONDS = 0.5
SEEN_SECONDS = 120.0  # network file systems remember for a minute that a file is not there
LEAVE_SECONDS = 30.0  # how long a machine may take to end its part once the call is withdrawn
SAME = "all machines need the same installation, and the same files at the same paths"


class SignIn(NamedTuple):
    """A machine that takes part, or says why it can't."""

    nonce: str
    """Of the call that it answers."""
    name: str
    """Of machine and process: HOST-PID."""
    problem: str
    """Why it can't take part; empty when it can."""


def begin(folder: Path) -> None:
    """A folder without what earlier calls left."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()


def signed_in(folder: Path, nonce: str) -> list[SignIn]:
    """Who has answered a call, by name."""
    found = [read(path) for path in sorted(folder.glob("*-*.json"))]
    return [SignIn(**one) for one in found if one and one["nonce"] == nonce]


def sign_in(folder: Path, answer: SignIn) -> None:
    """Answer a call."""
    write(folder / f"{answer.name}.json", answer._asdict())


def sign_out(folder: Path, name: str) -> None:
    """Take the answer back."""
    (folder / f"{name}.json").unlink(missing_ok=True)


# ---- versions ------------------------------------------------------------------------------


def versions(libraries: Collection[str]) -> dict[str, str]:
    """Of Python and these; a library that is not installed has none."""
    return {name: _version(name) for name in libraries} | {"python": platform.python_version()}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def stands_against(theirs: Mapping[str, str], model: str, fingerprint: str, role: str) -> str:
    """Why this machine can't work on the run's: its versions, or its copy of a model; or empty.

    `role`: what the model is, in words.
    """
    if differs := other_versions(theirs):
        return differs
    try:
        if weights.fingerprint(Path(model)) != fingerprint:
            return f"another model, or none, lies in {model}"
    except (OSError, LocalismError) as error:
        return f"the {role} in {model} can't be read: {error}"
    return ""


def other_versions(theirs: Mapping[str, str]) -> str:
    """What this machine has otherwise than the run's, in words; empty when nothing."""
    own = versions([name for name in theirs if name != "python"])
    others = [name for name, version in theirs.items() if own[name] != version]
    if not others:
        return ""
    here, there = (", ".join(f"{name} {of[name]}" for name in others) for of in (own, theirs))
    return f"it has {here} and the run's machine {there}"


# ---- files ---------------------------------------------------------------------------------


def write(path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
    """Store as JSON, whole for every reader; `mode` as of open, less the user's umask."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)


def read(path: Path) -> dict[str, Any] | None:
    """What write stored; None when nothing is there."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    except OSError as error:
        # A network file system has a name of its own for a file that was just replaced.
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return None
        raise
