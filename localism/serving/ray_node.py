"""Ray on one machine: started for one engine, with a key, and ended with everything it started.

No dashboard, no usage statistics, nothing looked up outside: Ray and vLLM are told their addresses,
because both would otherwise ask which way leads to a host on the Internet.
"""

import importlib.util
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from localism import egress, offline
from localism.errors import MachineError
from localism.processes import kill_session
from localism.serving import keeper
from localism.serving.ray_call import RayCall

# vLLM passes its tensors by other ways; Ray would take a third of the machine's memory.
OBJECT_STORE_BYTES = 256 * 2**20
# vLLM 0.32 sees at once that a worker of another machine died, and waits for its answer all the
# same: for five minutes unless told otherwise. Steps take seconds, and the first may compile.
STEP_SECONDS = 120
STOP_SECONDS = keeper.STOP_SECONDS + 5


def check_installed(table: str, nodes: int) -> None:
    """MachineError without Ray."""
    if importlib.util.find_spec("ray"):
        return
    raise MachineError(
        "an engine over several machines needs Ray, which is not installed",
        where=f"models.toml [{table}].nodes = {nodes}",
        fix="on every machine: pip install --no-deps -r requirements/ray.txt, or "
        "pip install 'localism[ray]'; or nodes = 1",
    )


def start(
    run_folder: Path, log: Path, call: RayCall, own: str, *, is_head: bool
) -> "subprocess.Popen[bytes]":
    """Ray's processes of this machine, at its address `own`; they end when this process does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    Path(call.temporary).mkdir(mode=0o700, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", keeper.__file__, str(log), *command(call, own, is_head=is_head)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=offline.child_environment(run_folder, "Ray") | variables(call, own),
            start_new_session=True,
        )


def command(call: RayCall, own: str, *, is_head: bool) -> list[str]:
    """ray start, which stays until it is ended."""
    words = [sys.executable, "-m", "localism.serving.ray_start", "--block"]
    if is_head:
        words += ["--head", f"--port={call.address.rpartition(':')[2]}"]
        words += ["--disable-usage-stats", "--include-dashboard=false", "--no-monitor"]
    else:
        words += [f"--address={call.address}"]
    words += [f"--node-ip-address={own}", f"--num-gpus={call.gpus}"]
    words += [f"--object-store-memory={OBJECT_STORE_BYTES}", f"--temp-dir={call.temporary}"]
    return words


def variables(call: RayCall, own: str) -> dict[str, str]:
    """What Ray's processes and the engine need in their environment."""
    return {
        "RAY_ADDRESS": call.address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": call.key,
        # Of this machine as the others reach it, in place of the air gap's 127.0.0.1.
        "VLLM_HOST_IP": own,
        "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(STEP_SECONDS),
    }


def stop(process: "subprocess.Popen[bytes]", call: RayCall) -> None:
    """End Ray on this machine, and what it left on the disk."""
    assert process.stdin is not None
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    kill_session(process.pid)
    process.wait()
    process.stdin.close()
    shutil.rmtree(call.temporary, ignore_errors=True)


# ---- addresses -----------------------------------------------------------------------------


def head_address(rendezvous: str, table: str) -> str:
    """HOST:PORT for Ray's head on this machine: an IPv4 address that others reach it at.

    `rendezvous`: HOST or HOST:PORT of models.toml; without it this machine's name decides, and a
    free port. Raises MachineError where that leads nowhere, to another machine, or to loopback.
    """
    host, _, port = rendezvous.partition(":")
    own = sorted(a for a in egress.own_addresses() if ":" not in a and not a.startswith("127."))
    try:
        found = socket.gethostbyname(host or socket.gethostname())
    except OSError:
        found = ""
    if found.startswith("127.") and not host and len(own) == 1:  # Debian's hosts file says so
        found = own[0]
    if found not in own:
        name = host or socket.gethostname()
        raise MachineError(
            f"other machines do not reach this one as {name}"
            + (f", which is {found}" if found else ", a name without an address"),
            where=f"models.toml [{table}].rendezvous = {rendezvous!r}",
            fix=f"one of this machine's own addresses: {', '.join(own) or 'it has none'}",
        )
    return f"{found}:{port or _free_port(found)}"


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def address_towards(head: str) -> str:
    """This machine's IPv4 address on the way to another's HOST:PORT; nothing is sent.

    Raises MachineError where there is no way.
    """
    host, _, port = head.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))
        except OSError as error:
            raise MachineError(
                f"this machine does not reach the run's machine: {error.strerror or error}",
                where=head,
                fix="let rendezvous in models.toml name the run's machine as the others reach it",
            ) from None
        address: str = probe.getsockname()[0]
        return address
