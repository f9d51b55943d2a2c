"""Fixtures of all tests; they live in engines.py, because every folder may have a conftest."""

from engines import new_context, teacher

__all__ = ["new_context", "teacher"]
