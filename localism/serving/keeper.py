"""Stands between localism and a server, so that neither can leave the other's processes behind.

localism starts `python keeper.py COMMAND...` in a new session, with a pipe as its stdin:

    localism -> keeper -> server -> its engine processes        (the last three are one session)

A vLLM server that is killed leaves its engine alive with all its memory, and so would a killed
localism leave the server. The keeper ends the whole session in both cases: when the server is
gone, and when the pipe closes, which the kernel does for a localism that was killed with -9.
(PR_SET_PDEATHSIG reaches only a direct child, is lost over fork, and fires when the thread that
started the child ends; a closed pipe has none of these traps.) Imports nothing but the standard
library, so that it costs about 10 MB and starts at once.
"""

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

STOP_SECONDS = 10.0


def end_session() -> None:
    """Kill every process of the group that started the session, the keeper included."""
    os.killpg(0, signal.SIGKILL)


def end_with_parent() -> None:
    """Block until the pipe to localism closes, then stop as if asked to."""
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run the command; on SIGTERM pass it on, and after STOP_SECONDS use force."""
    assert os.getpgrp() == os.getpid(), "end_session would reach processes of others"
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.terminate()
        force = threading.Timer(STOP_SECONDS, end_session)
        force.daemon = True
        force.start()

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=end_with_parent, daemon=True).start()
    code = server.wait()
    try:
        print(f"localism: the server ended with exit code {code}", flush=True)
    finally:  # also when the disk of the log is full
        end_session()


if __name__ == "__main__":
    main()
