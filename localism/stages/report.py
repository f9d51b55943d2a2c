"""Stage report: the corpus -> report.html, and the data set under export/.

Alone: localism report --run first
"""

from typing import Any

from localism.context import Context
from localism.progress import duration
from localism.reporting import export, facts, plots


def run(context: Context) -> str:
    """Write the page and the export; returns the verdict and where to look."""
    known = facts.collect(context)
    counts = export.write(
        context.store,
        context.folder / "export",
        _render("dataset-card.md", **known, verdict=facts.verdict(known)),
    )
    export.replace(context.folder / "report.html", _page(known))
    seconds = sum(row["seconds"] for row in known["stages"] if row["summary"])
    refused = len(known["refused"])
    return (
        f"{facts.verdict(known)}\n"
        f"kept {sum(counts.values()):,} of {sum(r['planned'] for r in known['splits']):,} "
        f"examples; {duration(seconds)}; {refused} attempts to leave this machine"
        f"{', all refused' if refused else ''}\n"
        f"{context.folder / 'report.html'}"
    )


def _page(known: dict[str, Any]) -> str:
    rows = facts.test_rows(known)
    percent = [row for row in rows if row["metric"] in facts.PERCENT and row["value"] is not None]
    # A report may be asked for at any time: what is not there yet has no figure.
    figures = dict.fromkeys(("checkpoints", "skills", "map", "clusters", "scores"), "")
    if known["checkpoints"]:
        figures["checkpoints"] = plots.checkpoint_curve(known["checkpoints"])
    if known["skills"]:
        figures["skills"] = plots.skill_use(known["skills"])
        figures["map"] = plots.skill_map(known["map"]) if known["map"] else ""
        figures["clusters"] = plots.cluster_sizes(known["clusters"])
    if percent:
        figures["scores"] = plots.test_scores(percent)
    return _render(
        "report.html",
        **known,
        verdict=facts.verdict(known),
        rows=rows,
        figures=figures,
        picked=facts.picked_checkpoint(known),
        gain=facts.gain(known),
        duration=duration,
    )


def _render(template: str, **values: Any) -> str:
    """Fill a packaged template; HTML is escaped, so no text of a model becomes markup."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("localism", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(template).render(**values)


def _number(value: Any, digits: int = 1) -> str:
    """A number for people; a missing one is a dash, never 0."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
