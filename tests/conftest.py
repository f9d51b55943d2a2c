"""Fixtures of all tests: from engines.py and trainings.py, for every folder may have a conftest."""

import os
import signal
from collections.abc import Iterator

import pytest
from engines import new_context, teacher
from hypothesis import settings
from trainings import finished

__all__ = ["finished", "new_context", "own_environment", "teacher"]

# Shells start what stands before an & without Ctrl-C, and children inherit that: tests of Ctrl-C
# would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """A test that opens a run closes the air gap for every later child: not for the next test's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


# The same examples in every run, so that a failure is about the change at hand. To look for new
# ones: pytest --hypothesis-profile=default.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
