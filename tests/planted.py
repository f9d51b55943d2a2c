"""A library that phones home as soon as it is loaded: planted where the guard has to refuse it.

    monkeypatch.setenv("PYTHONPATH", str(plant(folder))); ...; found = refused(folder, run_folder)

It is a distribution beside the installed ones whose entry points torch and vLLM load and call by
themselves, in every process; so it stands for any plugin that reports its use. It keeps a list of
its own of what it tried: what is there and not in the run's log was not seen by the guard.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from localism import offline

# TEST-NET-2 (RFC 5737). Not TEST-NET-1: virtual machines are fond of living in 192.0.2.0/24.
OUTSIDE = "198.51.100.1"
CALLS = "calls.jsonl"
LIBRARY = f'''"""Phones home."""

import json
import os
import socket


def phone_home(*_, **__):
    caller = socket.socket()
    caller.settimeout(5)
    try:
        caller.connect(("{OUTSIDE}", 80))
        said = "connected"
    except OSError as error:
        said = type(error).__name__
    # The kernel gives a socket its address in connect: none means that it was never asked.
    call = {{"pid": os.getpid(), "said": said, "address": caller.getsockname()[0]}}
    with open(os.path.join(os.path.dirname(__file__), "{CALLS}"), "a") as calls:
        calls.write(json.dumps(call) + "\\n")
'''
LINE = 1 + LIBRARY.splitlines().index(f'        caller.connect(("{OUTSIDE}", 80))')
POINTS = """[torch.backends]
phones_home = phones_home:phone_home
[vllm.general_plugins]
phones_home = phones_home:phone_home
"""


def plant(folder: Path, *, at_start: bool = False) -> Path:
    """Write the library; the folder, for PYTHONPATH. at_start: every Python calls it at once."""
    record = folder / "phones_home-1.0.dist-info"
    record.mkdir(parents=True)
    (folder / "phones_home.py").write_text(LIBRARY)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: phones-home\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text(POINTS)
    if at_start:
        (folder / "sitecustomize.py").write_text("import phones_home; phones_home.phone_home()\n")
    return folder


def refused(folder: Path, run_folder: Path) -> list[dict[str, Any]]:
    """What the run recorded, once it is sure that nothing which was tried is missing there."""
    calls = [json.loads(line) for line in (folder / CALLS).read_text().splitlines()]
    assert {(call["said"], call["address"]) for call in calls} == {("EgressRefused", "0.0.0.0")}
    attempts = offline.refused_connections(run_folder)
    assert Counter(call["pid"] for call in calls) == Counter(one["pid"] for one in attempts)
    for attempt in attempts:
        assert attempt["target"] == [OUTSIDE, "80"]
        assert f"{folder / 'phones_home.py'}:{LINE} phone_home" in attempt["stack"], attempt
    return attempts
