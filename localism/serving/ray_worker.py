"""A machine's part in an engine of a run that works on another (localism.worker): Ray, no more.

vLLM's workers are started by Ray itself, when the run's process starts the engine.
"""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from localism import lock, machines, offline
from localism.errors import MachineError
from localism.machines import POLL_SECONDS, SAME, SignIn
from localism.records import LOCK
from localism.serving import ray_call, ray_node
from localism.serving.ray_call import RayCall


def take_part(run_folder: Path, call: RayCall, say: Callable[[str], None]) -> int:
    """Answer a call and join its Ray until it is withdrawn; 0, or Ray's exit code.

    Raises MachineError when this machine can't take part.
    """
    folder = ray_call.folder(run_folder)
    name = f"{socket.gethostname()}-{os.getpid()}"
    problem = machines.stands_against(call.versions, call.model, call.fingerprint, "model")
    machines.sign_in(folder, SignIn(call.nonce, name, problem))
    if problem:
        raise MachineError(
            f"this machine can't take part: {problem}", where=f"{name}, for {call.model}", fix=SAME
        )
    log = run_folder / "logs" / ray_call.log_name(socket.gethostname())
    try:
        # Beside this machine the run's may be reached, by Ray's processes too.
        offline.close_air_gap(run_folder, [call.address.rpartition(":")[0]], "worker")
        own = ray_node.address_towards(call.address)
        say(f"joins Ray at {call.address} as {own}, for an engine")
        process = ray_node.start(run_folder, log, call, own, is_head=False)
        try:
            looked = time.monotonic()
            while process.poll() is None and ray_call.stands(run_folder, call):
                time.sleep(POLL_SECONDS)
                if time.monotonic() - looked > lock.BEAT_SECONDS:
                    looked = time.monotonic()
                    if is_abandoned(run_folder):
                        say("the run's process has given no sign of life for minutes: Ray ends")
                        break
            code = process.poll()
        finally:
            ray_node.stop(process, call)
    finally:
        machines.sign_out(folder, name)
    say(f"Ray ended with exit code {code}: see {log}" if code else "that engine is ended")
    return code or 0


def is_abandoned(run_folder: Path) -> bool:
    """Whether the run's process was killed: its call stands, and it is silent."""
    return (run_folder / LOCK).exists() and lock.silence(run_folder) > lock.ALIVE_SECONDS
