"""The report as one HTML file: facts -> text, with the scripts and data that it needs inside.

Nothing is fetched: a content security policy forbids every request and every script but those that
are written here, named by their hashes. Text of models is escaped in the markup and in the data.
"""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from localism.progress import duration
from localism.reporting import evaluations, facts
from localism.tables import number_of

# What could end a script element or begin a comment in it, and what JavaScript takes for line ends.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.umd.min.js",
    "report/tables.js",
    "report/plots.js",
    "report/skills.js",
)
STYLE = "report/report.css"


def render(known: dict[str, Any]) -> str:
    """The page of what facts.collect found."""
    import markupsafe

    scripts = [_packaged(name) for name in SCRIPTS]
    style = _packaged(STYLE)
    return (
        _environment()
        .get_template("report.html")
        .render(
            **known,
            verdict=facts.verdict(known),
            blocks=facts.test_blocks(known),
            picked=facts.picked_checkpoint(known),
            gain=facts.gain(known),
            checks=evaluations.CHECKS,
            map_count=sum(row["map_x"] is not None for row in known["shown_skills"]),
            policy=policy(scripts, style),
            scripts=[markupsafe.Markup(text) for text in scripts],
            style=markupsafe.Markup(style),
            data=markupsafe.Markup(as_json(plotted(known))),
            vendor=json.loads(_packaged("vendor/vendor.json")),
            vendor_licences=_packaged("vendor/LICENCES.txt"),
            recipe=json.dumps(known["config"].recipe(), indent=2, ensure_ascii=False),
        )
    )


def plotted(known: dict[str, Any]) -> dict[str, Any]:
    """What the figures draw, by name; a figure without rows is left out of the page."""
    clusters = {row["name"]: place for place, row in enumerate(known["clusters"])}
    return {
        "checkpoints": [
            {key: value for key, value in row.items() if key != "training"}
            for row in known["checkpoints"]
        ],
        "uses": known["uses"],
        "sizes": _sizes(known["clusters"]),
        "map": [
            [
                row["skill"],
                -1 if row["rare"] or row["size"] == 1 else clusters[row["cluster"]],
                round(row["map_x"], 2),
                round(row["map_y"], 2),
                row["planned"],
                row["accepted"],
            ]
            for row in known["shown_skills"]
            if row["map_x"] is not None
        ],
        "clusters": [row["name"] for row in known["clusters"] if row["size"] > 1],
        "matrix": known["matrix"],
        "parts": [block for suite in known["suites"] for block in _drawn_parts(suite)],
    }


def _sizes(clusters: list[dict[str, Any]]) -> list[dict[str, int]]:
    sizes = [row["size"] for row in clusters]
    return [{"size": size, "clusters": sizes.count(size)} for size in sorted(set(sizes))]


def _drawn_parts(suite: dict[str, Any]) -> list[dict[str, Any]]:
    """Blocks of parts as flat points; the page names a figure by its place among all blocks."""
    return [
        {
            "suite": suite["suite"],
            "metric": facts.METRICS.get(block["metric"], words(block["metric"])),
            "scale": block["scale"],
            "models": block["models"],
            "rows": [
                {key: cell[key] for key in ("part", "model_id", "value", "low", "high", "n")}
                for row in block["rows"]
                for cell in row["cells"]
                if cell is not None and cell["value"] is not None
            ],
        }
        for block in suite["parts"]
    ]


def as_json(value: Any) -> str:
    """JSON that cannot leave the script element that it is written in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(_UNSAFE.get(letter, letter) for letter in text)


def policy(scripts: list[str], style: str) -> str:
    """A content security policy that lets these scripts and this style run, and nothing load."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(_digest(text) for text in scripts)}",
            f"style-src {_digest(style)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packaged(name: str) -> str:
    return resources.files("localism").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> Any:
    """Packaged templates; HTML is escaped, so no text of a model becomes markup."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("localism", "templates"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "counted": number_of,
        "interval": interval,
        "words": words,
        "metric": lambda name: facts.METRICS.get(name, words(name)),
        "bytes": size,
        "duration": lambda seconds: "–" if seconds is None else duration(seconds),
        "bar": bar,
    }
    environment.tests["contains_space"] = lambda text: " " in text
    return environment


def number(value: Any, digits: int = 1) -> str:
    """A number for people; a missing one is a dash, never 0."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def interval(row: dict[str, Any], digits: int = 1) -> str:
    """45.9 to 47.7; a dash where the interval is not known."""
    if row["low"] is None or row["high"] is None:
        return "–"
    return f"{number(row['low'], digits)} to {number(row['high'], digits)}"


def words(name: str) -> str:
    """plan_day_routes -> plan day routes."""
    return str(name).replace("_", " ")


def size(count: int | None) -> str:
    """6.2 MB; a dash where it is not known."""
    if count is None:
        return "–"
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:,.0f} {units[0]}" if units[0] == "bytes" else f"{value:,.1f} {units[0]}"


def bar(value: float | None, axis: list[float]) -> float:
    """Where a value lies on an axis, in percent of its length."""
    low, high = axis
    place = 0.0 if value is None else 100 * (value - low) / ((high - low) or 1)
    return round(min(100.0, max(0.0, place)), 2)
