"""One whole run for all end-to-end tests, in a network namespace with loopback alone."""

import subprocess
import time

import netns
import pytest
from pipeline import LIMIT_SECONDS, Finished, run_all


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
    """run-all from nothing to report, inside the namespace where one is permitted."""
    folder = tmp_path_factory.mktemp("e2e") / "runs" / "small"
    wrapped = run_all(folder)
    if netns.reason_not_permitted() is None:
        wrapped = netns.isolated(wrapped)
    started = time.monotonic()
    done = subprocess.run(wrapped, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return Finished(folder, done.stdout + done.stderr, time.monotonic() - started)
