"""What a check found, and a list of them as text."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

from localism import tables

Status = Literal["pass", "warn", "fail"]


class Finding(NamedTuple):
    """One line of the doctor's table."""

    status: Status
    """fail would stop a run or spoil its result; warn is worth a look."""
    check: str
    """What was looked at."""
    found: str
    """What was seen."""
    fix: str = ""
    """What to do; empty where all is well."""
    exit_code: int = 4
    """Of the doctor where this fails: 3 for what is mended in models.toml or a file it names."""


def worst(findings: Sequence[Finding]) -> Status:
    """fail, warn or pass."""
    there = {finding.status for finding in findings}
    return "fail" if "fail" in there else "warn" if "warn" in there else "pass"


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where nothing fails; 3 before 4, for the machine is looked at with what is written."""
    return min((one.exit_code for one in findings if one.status == "fail"), default=0)


def as_rows(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """What is shown of each, for JSON."""
    return [
        {"status": one.status, "check": one.check, "found": one.found, "fix": one.fix}
        for one in findings
    ]


def counted(findings: Sequence[Finding]) -> str:
    """24 checks passed, 2 warnings, 1 failed."""
    counts = Counter(finding.status for finding in findings)
    said = [f"{tables.number_of(counts['pass'], 'check')} passed"]
    if counts["warn"]:
        said.append(tables.number_of(counts["warn"], "warning"))
    if counts["fail"]:
        said.append(f"{counts['fail']} failed")
    return ", ".join(said)


def render(findings: Sequence[Finding], width: int) -> str:
    """A block for each finding; a fix stands under what it mends."""
    name = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        head = f"{finding.status:<5} {finding.check:<{name}}  "
        room = max(30, width - len(head))
        found = textwrap.wrap(finding.found, room, break_on_hyphens=False) or [""]
        lines.append(head + found[0])
        lines += [" " * len(head) + line for line in found[1:]]
        if finding.fix:
            wrapped = textwrap.wrap(f"fix: {finding.fix}", room, break_on_hyphens=False)
            lines += [" " * len(head) + line for line in wrapped]
    return "\n".join([*lines, counted(findings)]) + "\n"
