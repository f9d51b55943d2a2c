"""Stage report: the corpus -> report.html, and the data set under export/.

Alone: localism report --run first
"""

from localism.context import Context
from localism.export.folder import replace
from localism.export.make import keep_in_run
from localism.progress import duration
from localism.reporting import facts, page


def run(context: Context) -> str:
    """Write the page and the export; returns the verdict and where to look."""
    known = facts.collect(context)
    counts = keep_in_run(context)
    replace(context.folder / "report.html", page.render(known))
    seconds = sum(row["seconds"] for row in known["stages"] if row["summary"])
    refused = len(known["refused"])
    return (
        f"{facts.verdict(known)}\n"
        f"kept {sum(counts.values()):,} of {sum(r['planned'] for r in known['splits']):,} "
        f"examples; {duration(seconds)}; {refused} attempts to leave this machine"
        f"{', all refused' if refused else ''}\n"
        f"{context.folder / 'report.html'}"
    )
