"""Stands between localism and a server, so that neither can leave the other's processes behind.

localism starts `python keeper.py LOG COMMAND...` in a new session, with a pipe as its stdin:

    localism -> keeper -> server -> its engine processes        (the last three are one session)

A vLLM server that is killed leaves its engine alive with all its memory, and so would a killed
localism leave the server. The keeper ends the whole session in both cases: when the server is
gone, and when the pipe closes, which the kernel does for a localism that was killed with -9.
(PR_SET_PDEATHSIG reaches only a direct child, is lost over fork, and fires when the thread that
started the child ends; a closed pipe has none of these traps.) Imports nothing but the standard
library, so that it costs about 10 MB and starts at once.

What the session prints comes through the keeper as well, into LOG, which is rotated when it is
long. A log that the server holds open itself can only be cut while it writes, and loses lines.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

STOP_SECONDS = 10.0
# vLLM prints 2 MB a day when all is well; a warning at every step of it is another matter.
LOG_BYTES = 64 << 20
OLD_LOGS = 3
READ_BYTES = 1 << 16
# What the last processes of a session print while they end.
LAST_WORDS_SECONDS = 2.0


class Log:
    """LOG, and LOG.1 to LOG.3 behind it, the newest first. No line is torn or lost in between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Append; a full file becomes LOG.1 at the end of a line. A full disk loses the data."""
        try:
            cut = data.rfind(b"\n") + 1
            if cut and self._file.tell() + cut > LOG_BYTES:
                self._append(data[:cut])
                self._rotate()
                data = data[cut:]
            self._append(data)
        except OSError:
            pass  # a server that waits for its log would hang

    def _append(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) or 0 :]

    def _rotate(self) -> None:
        rotate(self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)


def rotate(path: Path) -> None:
    """LOG.2 becomes LOG.3, LOG.1 becomes LOG.2, LOG becomes LOG.1; the oldest goes."""
    files = [path, *old_logs(path)]
    for younger, older in reversed(list(zip(files, files[1:], strict=False))):
        if younger.exists():
            younger.replace(older)


def old_logs(path: Path) -> list[Path]:
    """LOG.1 to LOG.3, whether or not they are there."""
    return [path.with_name(f"{path.name}.{number}") for number in range(1, OLD_LOGS + 1)]


def pump(source: int, log: Log) -> None:
    """Everything that comes out of the session into its log, until nobody is left to print."""
    while data := os.read(source, READ_BYTES):
        log.write(data)


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
    log, command = Log(Path(sys.argv[1])), sys.argv[2:]
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert server.stdout is not None
    pumping = threading.Thread(target=pump, args=(server.stdout.fileno(), log), daemon=True)
    pumping.start()

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.terminate()
        force = threading.Timer(STOP_SECONDS, end_session)
        force.daemon = True
        force.start()

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=end_with_parent, daemon=True).start()
    code = server.wait()
    pumping.join(LAST_WORDS_SECONDS)
    log.write(f"localism: the server ended with exit code {code}\n".encode())
    end_session()


if __name__ == "__main__":
    main()
