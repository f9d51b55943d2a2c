"""Figures of the report: rows of the corpus -> SVG text to put into the page."""

import io
import math
from collections.abc import Callable
from typing import Any

DRAWN_AS_POINTS = 3000
# Okabe and Ito's colours and darker kin: told apart also by the colour-blind.
CLUSTER_COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#8a6d00",
    "#56b4e9",
    "#e69f00",
    "#5b4b8a",
    "#7a1f1f",
    "#3d6b6b",
)
INK, FAINT, BLUE, ORANGE, GREEN = "#1f2328", "#8b949e", "#2f6fdb", "#d9730d", "#2da44e"

Rows = list[dict[str, Any]]


def _figure(width: float, height: float, draw: Callable[[Any], None], columns: int = 1) -> str:
    """Draw on matplotlib axes and return the <svg> element; text stays text, ids are stable."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "localism",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e8eb",
        "legend.frameon": False,
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(1, columns, figsize=(width, height), layout="constrained")
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
        pyplot.close(figure)
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def checkpoint_curve(rows: Rows) -> str:
    """Win rates, skill coverage and losses over epochs (view checkpoint_curve)."""

    def draw(axes: Any) -> None:
        rates, losses = axes
        epochs = [row["epoch"] for row in rows]
        _line(rates, rows, "lc_win_rate", "length-controlled win rate", BLUE, "o")
        bounded = [row for row in rows if row["lc_low"] is not None]
        rates.fill_between(
            [row["epoch"] for row in bounded],
            [row["lc_low"] for row in bounded],
            [row["lc_high"] for row in bounded],
            color=BLUE,
            alpha=0.15,
            linewidth=0,
        )
        _line(rates, rows, "win_rate", "win rate", ORANGE, "s")
        _line(rates, rows, "skill_coverage", "answers with all skills (by words)", GREEN, "^")
        for row in rows:
            if row["picked"]:
                rates.axvline(row["epoch"], color=INK, linewidth=1, linestyle=":")
                rates.annotate(
                    "picked",
                    (row["epoch"], 1),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    va="bottom",
                    fontsize=9,
                )
        rates.set(xlabel="epoch", ylabel="%", xticks=epochs)
        rates.set_ylim(bottom=0)
        _line(losses, rows, "train_loss", "train", FAINT, "o")
        _line(losses, rows, "dev_loss", "dev", INK, "o")
        losses.set(xlabel="epoch", ylabel="cross-entropy, nats a token", xticks=epochs)
        for one in axes:
            if one.get_legend_handles_labels()[0]:
                one.legend(fontsize=9, loc="best")

    return _figure(9.2, 3.5, draw, columns=2)


def _line(axis: Any, rows: Rows, column: str, label: str, color: str, marker: str) -> None:
    known = [row for row in rows if row[column] is not None]
    if known:
        axis.plot(
            [row["epoch"] for row in known],
            [row[column] for row in known],
            color=color,
            marker=marker,
            markersize=4,
            linewidth=1.6,
            label=label,
        )


def skill_use(rows: Rows) -> str:
    """How often each skill was planned and how often accepted (view skill_coverage)."""
    ordered = sorted(rows, key=lambda row: (-row["accepted"], -row["planned"], row["skill"]))

    def draw(axis: Any) -> None:
        places = range(len(ordered))
        axis.fill_between(
            places,
            [row["planned"] for row in ordered],
            step="mid",
            color=FAINT,
            alpha=0.35,
            linewidth=0,
            label="planned",
        )
        axis.fill_between(
            places,
            [row["accepted"] for row in ordered],
            step="mid",
            color=BLUE,
            alpha=0.8,
            linewidth=0,
            label="accepted",
        )
        axis.set(
            xlabel="skills, most accepted first",
            ylabel="examples",
            xlim=(0, max(1, len(ordered) - 1)),
        )
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=9, loc="upper right", bbox_to_anchor=(1, 1.16), ncols=2)

    return _figure(4.5, 2.8, draw)


def skill_map(rows: Rows) -> str:
    """Where skills lie to each other (columns map_x, map_y of table skill), largest clusters named.

    Near points are alike; distances between far ones say little. Above DRAWN_AS_POINTS skills the
    points are one picture, so that the page stays small.
    """
    sizes = {row["cluster"]: row["size"] for row in rows if not row["rare"]}
    named = sorted(sizes, key=lambda name: (-sizes[name], name))[: len(CLUSTER_COLORS)]
    color_of = dict(zip(named, CLUSTER_COLORS, strict=False))

    def draw(axis: Any) -> None:
        for row in sorted(rows, key=lambda row: row["cluster"] in color_of):
            axis.plot(
                row["map_x"],
                row["map_y"],
                "o",
                color=color_of.get(row["cluster"], FAINT),
                markersize=7 if row["cluster"] in color_of else 3.5,
                alpha=0.4 if row["rare"] else 0.85,
                markeredgewidth=0,
                rasterized=len(rows) > DRAWN_AS_POINTS,
            )
        axis.set(xticks=[], yticks=[])
        axis.margins(0.08)
        for side in ("left", "bottom"):
            axis.spines[side].set_visible(False)
        _name_clusters(axis, {name: _middle(rows, name) for name in named}, color_of)

    return _figure(9.2, 5.2, draw)


def _middle(rows: Rows, cluster: str) -> tuple[float, float]:
    """The place of the member that is nearest to all others: a mean may lie between two heaps."""
    places = [(row["map_x"], row["map_y"]) for row in rows if row["cluster"] == cluster]
    return min(places, key=lambda place: sum(math.dist(place, other) for other in places))


def _name_clusters(
    axis: Any, places: dict[str, tuple[float, float]], color_of: dict[str, str]
) -> None:
    """Each name over its place, or under it where another name is in the way."""
    width, height = (high - low for low, high in (axis.get_xlim(), axis.get_ylim()))
    above: list[tuple[float, float]] = []
    for name, (x, y) in places.items():
        crowded = any(abs(x - u) < width / 6 and abs(y - v) < height / 18 for u, v in above)
        axis.annotate(
            name.replace("_", " "),
            (x, y),
            xytext=(0, -14 if crowded else 8),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=color_of[name],
            # A halo would turn the letters into outlines, which no one can search or copy.
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
        )
        above += [] if crowded else [(x, y)]


def cluster_sizes(rows: Rows) -> str:
    """How many clusters hold how many skills (table cluster)."""
    sizes = [row["size"] for row in rows]

    def draw(axis: Any) -> None:
        counts = {size: sizes.count(size) for size in sorted(set(sizes))}
        axis.bar([str(size) for size in counts], list(counts.values()), color=BLUE, width=0.7)
        axis.set(xlabel="skills in the cluster", ylabel="clusters")
        axis.grid(axis="x", visible=False)

    return _figure(4.5, 2.8, draw)


def test_scores(rows: Rows) -> str:
    """Each model's test scores with their 95% intervals."""
    ordered = list(reversed(rows))

    def draw(axis: Any) -> None:
        for place, row in enumerate(ordered):
            if row["low"] is not None:
                axis.plot(
                    [row["low"], row["high"]],
                    [place, place],
                    color=BLUE,
                    linewidth=5,
                    alpha=0.35,
                    solid_capstyle="butt",
                )
            axis.plot(row["value"], place, "o", color=BLUE, clip_on=False)
            axis.annotate(
                f"{row['value']:.1f}",
                (row["value"], place),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
        axis.set_yticks(range(len(ordered)), [row["label"] for row in ordered])
        axis.set(xlabel="%", ylim=(-0.6, len(ordered) - 0.3))
        axis.set_xlim(left=0, right=100)
        axis.grid(axis="y", visible=False)

    return _figure(9.2, 0.55 * len(ordered) + 0.7, draw)
