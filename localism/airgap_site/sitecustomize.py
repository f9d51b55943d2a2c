"""Python imports this at the start of every child of localism: it sets up the socket guard.

offline.child_environment puts this folder first on PYTHONPATH. A sitecustomize of the user's own,
which this one shadows, is run afterwards.
"""

import importlib.machinery
import importlib.util
import os
import sys
import types

_here = os.path.dirname(os.path.realpath(__file__))


def _run(path: str, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


try:
    # By path: importing the localism package here would cost every child its import time.
    _egress = _run(os.path.join(os.path.dirname(_here), "egress.py"), "localism_egress")
    sys.modules["localism_egress"] = _egress  # localism.egress looks here for a standing guard
    _egress.install_from_environment()
except BaseException:
    # Python reports an error in sitecustomize and goes on, here that would be: without the guard.
    import traceback

    traceback.print_exc()
    print("localism: the socket guard could not be set up; this process ends", file=sys.stderr)
    sys.stderr.flush()
    os._exit(70)

_others = [entry for entry in sys.path if entry and os.path.realpath(entry) != _here]
_shadowed = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _shadowed is not None and _shadowed.origin:
    _run(_shadowed.origin, "shadowed_sitecustomize")
