"""Python imports this at the start of every child of localism: it sets up the socket guard.

offline.child_environment puts this folder first on PYTHONPATH. A sitecustomize of the user's own,
which this one shadows, is run afterwards.
"""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

_here = Path(__file__).resolve().parent


def _run(path: Path, name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# By path: importing the localism package here would cost every child its import time.
_run(_here.parent / "egress.py", "localism_egress").install_from_environment()

_others = [entry for entry in sys.path if entry and Path(entry).resolve() != _here]
_shadowed = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _shadowed is not None and _shadowed.origin:
    _run(Path(_shadowed.origin), "shadowed_sitecustomize")
