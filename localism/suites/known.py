"""The benchmarks that localism knows, by name."""

from pathlib import Path

from localism.errors import UsageError
from localism.suites import alpacaeval, flask, mtbench, skillmix, wildbench
from localism.suites.records import Suite
from localism.toml_mistakes import likely

PROTOCOLS: dict[str, Suite] = {
    module.NAME: module for module in (alpacaeval, mtbench, wildbench, flask, skillmix)
}
LM_EVAL = "lm-eval"
"""Runs in lm-evaluation-harness, see localism/lmeval/; it has no protocol here."""


def protocol_of(name: str) -> Suite:
    """The protocol of a suite by name; a file is judged as AlpacaEval's prompts are."""
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if is_file(name):
        return alpacaeval
    names = [*PROTOCOLS, LM_EVAL]
    if "/" in name or "." in name:
        raise UsageError("there is no such file", where=f"--suite {name}", fix="check the path")
    raise UsageError(
        f"no benchmark named {name!r}",
        where=f"--suite {name}",
        fix=f"{likely(name, names)}there are {', '.join(names)}; or give a file of prompts",
    )


def is_file(name: str) -> bool:
    """Whether a suite is named by the path of a file of the user's own."""
    return name not in PROTOCOLS and name != LM_EVAL and Path(name).exists()
