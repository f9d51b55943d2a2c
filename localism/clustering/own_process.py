"""A function in a process of its own, so that what it took of the GPU is free again after it."""

import ctypes
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from localism.errors import MachineError

PR_SET_PDEATHSIG = 1


def in_own_process(out_of_memory: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), computed by a fresh Python process that ends afterwards.

    Spawned, not forked: a fork would inherit a CUDA that it may not use. Exceptions come through
    as they are, but when memory did not suffice, the GPU's or the machine's, MachineError is
    raised with the fix `out_of_memory`.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_end_with_parent) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            problem, where = "was killed", "by the system when memory runs out: `dmesg` tells"
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if "out of memory" not in str(error):
                raise
            problem, where = "ran out of GPU memory", str(error).splitlines()[0]
    raise MachineError(
        f"the process for {function.__name__.strip('_')} {problem}", where=where, fix=out_of_memory
    )


def _end_with_parent() -> None:
    """Have the kernel end this process with its parent, or a kill -9 would leave the GPU taken."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
