"""Why a vLLM server did not start or died: its log -> a problem, the lines that say so, a fix."""

import re
from pathlib import Path
from typing import NamedTuple

from localism.errors import LocalismError, StageError, of_a_full_disk
from localism.serving.keeper import old_logs
from localism.serving.root_cause import causes

LOG_LINES = 15
# No cause is sought further back.
MOST_CHARACTERS = 8 << 20
LINE_CHARACTERS = 300


class Diagnosis(NamedTuple):
    """What a log says to the user."""

    problem: str
    """One line."""
    fix: str
    """What to change; {table} is the table of models.toml that describes the model."""


# The first pattern that is found wins: causes stand before the general errors that they lead to.
KNOWN = (
    (
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived "
        r"max_model_len \(\w+=(?P<own>\d+)",
        "max_model_len is longer than the model can read",
        "lower [{table}].max_model_len to at most {own}, or remove it",
    ),
    (
        r"(?i)larger than the (available KV cache memory|maximum number of tokens that can be)"
        r"|No available memory for the cache blocks|estimated maximum model length",
        "one conversation of max_model_len tokens does not fit into the engine's cache",
        "lower [{table}].max_model_len, or raise gpu_memory_utilization or tensor_parallel",
    ),
    (
        r"(?i)CUDA out of memory|OutOfMemoryError|Free memory on device.{0,200}less than desired"
        r"|Not enough memory|Cannot allocate memory|DefaultCPUAllocator: can't allocate",
        "the engine ran out of memory",
        "lower [{table}].gpu_memory_utilization or max_num_seqs, raise tensor_parallel, or end "
        "what else uses the GPU (`nvidia-smi` lists it)",
    ),
    (
        r"(?i)address already in use",
        "the port was taken by another process meanwhile",
        "run the same command again",
    ),
    (
        r"unrecognized arguments: (?P<arguments>[^\n]+)",
        "vLLM does not know {arguments}",
        "mend [{table}].engine_arguments; `python -m vllm.entrypoints.launchers.api_server.entry "
        "--help=all` lists what it takes",
    ),
    (
        r"error: argument (?P<arguments>[^\n]+)",
        "vLLM refuses an argument: {arguments}",
        "mend [{table}].engine_arguments",
    ),
    (
        r"No module named '?vllm",
        "vLLM is not installed",
        "pip install 'localism[gpu]', or with requirements/cpu.txt on a machine without a GPU",
    ),
    (
        r"(?i)trust_remote_code=True|--trust-remote-code",
        "the model brings Python code of its own",
        "read that code, then set [{table}].trust_remote_code = true",
    ),
    (
        r"(?i)Model architectures \[(?P<arguments>[^\]]*)\].{0,80}(not supported|failed to be)",
        "vLLM cannot serve this architecture: {arguments}",
        "use another model, or a version of vLLM that knows it",
    ),
    (
        r"current platform \S+ does not support ray|No +found in Ray cluster",
        "vLLM's CPU build has nothing that Ray can count, and cannot span machines",
        "[{table}].nodes = 1; or a server on each machine, named in endpoints",
    ),
    (
        r"(?i)tensor parallel size|World size \(\d+\) is larger than the number of available GPUs"
        r"|(must be )?divisible by tensor_parallel",
        "tensor_parallel does not suit this model or machine",
        "set [{table}].tensor_parallel to a number of GPUs that there are and that divides the "
        "model's attention heads",
    ),
)


def diagnose(log: str, table: str) -> Diagnosis | None:
    """The first known cause in a log, or None."""
    for pattern, problem, fix in KNOWN:
        found = re.search(pattern, log, re.DOTALL)
        if found:
            words = {key: value.strip() for key, value in found.groupdict().items() if value}
            return Diagnosis(problem.format(table=table, **words), fix.format(table=table, **words))
    return None


def engine_error(problem: str, log: Path, header: str, table: str) -> LocalismError:
    """A StageError that shows the root cause in the log since `header`, and the fix that fits it.

    Without an error that has a traceback, the end of the log. MachineError for a disk that is full.
    """
    text = log_since(log, header)
    if full := of_a_full_disk(text, log.parent):
        return full
    errors = causes(text)
    lines = [line for line in text.splitlines() if line.strip()][-LOG_LINES:]
    if errors:
        lines = [*errors[0].frames, *errors[0].text]
        # The rest of the log would tell of settings too, as if they were mistakes.
        text = "\n".join(line for error in errors for line in error.text)
    found = diagnose(text, table)
    said = found.problem if found else errors[0].said[:LINE_CHARACTERS] if errors else ""
    shown = "".join(f"\n       | {line.rstrip()[:LINE_CHARACTERS]}" for line in lines)
    return StageError(
        f"{problem}: {said}" if said else problem,
        where=f"{log}{shown}",
        fix=found.fix if found else f"the cause is in the log: {log}",
    )


def log_since(log: Path, header: str) -> str:
    """What was printed since the last line `header`, without colour codes; all if it is empty.

    By a line and not by a position: after hours the log may have been rotated, more than once.
    """
    found = ""
    for file in (log, *old_logs(log)):
        if not file.exists() or len(found) > MOST_CHARACTERS:
            break
        before, is_there, after = file.read_text(errors="replace").rpartition(header or "\0")
        found = (after if is_there else before + after) + found
        if is_there:
            break
    return re.sub(r"\x1b\[[0-9;]*m", "", found)
