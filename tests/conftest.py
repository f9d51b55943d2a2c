"""Fixtures of all tests; they live in engines.py, because every folder may have a conftest."""

from engines import new_context, teacher
from hypothesis import settings

__all__ = ["new_context", "teacher"]

# The same examples in every run, so that a failure is about the change at hand. To look for new
# ones: pytest --hypothesis-profile=default.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")
