"""Draws docs/plots/*.svg and *.png from the JSON of scale.py: `python benches/plots.py [benches/results/scale.json]`.

The same JSON gives the same files: no dates in them, and text stays text in the SVG. matplotlib is imported when something is
drawn, so that what is read from the JSON can be tested without it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not benches/ itself, whose names could hide others

from benches.scale import NAMES, TIMES, cell, rivals, sizes  # noqa: E402

COLOURS = {"weft-processes": "#0b6e4f", "asyncio": "#c8553d", "go-1": "#2b6cb0", "go": "#8a8a8a"}
STYLE = {
    "svg.hashsalt": "weft",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


class Line(NamedTuple):
    rival: str
    n: list[int]
    median: list[float]
    least: list[float]
    most: list[float]


def lines(result: dict, shape: str) -> list[Line]:
    """Nanoseconds per communication by the number of processes, each rival's as far as it was measured."""
    found = []
    for rival in rivals(result):
        cells = [each for n in sizes(result, shape) if (each := cell(result, shape, rival, n))]
        columns = [[each[key] for each in cells] for key in ("n", "ns", "ns_min", "ns_max")]
        found.append(Line(rival, *columns))
    return found


def bars(result: dict, channels: str) -> list[tuple[str, float]]:
    """Bytes per process that waits, of as many as were measured for all rivals."""
    for n in reversed(sizes(result, "memory")):
        cells = [(rival, cell(result, "memory", rival, n, channels)) for rival in rivals(result)]
        if all(each for _, each in cells):
            return [(rival, each["bytes"]) for rival, each in cells]
    return []


def times(result: dict, kind: str, pair: str = "chatty") -> list[tuple[str, list[float]]]:
    """A rival's percentiles, in nanoseconds."""
    n = sizes(result, "latency")[-1]
    found = [(rival, cell(result, "latency", rival, n, pair).get(kind)) for rival in rivals(result)]
    return [(rival, values) for rival, values in found if values]


def communication(result: dict, pyplot: Any) -> Any:
    figure, two = pyplot.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    for axes, shape, title in zip(
        two, ("ring", "crowd"), ("a token goes round all N", "two talk, N \N{MINUS SIGN} 2 wait")
    ):
        for line in lines(result, shape):
            errors = [
                [middle - least for middle, least in zip(line.median, line.least)],
                [most - middle for middle, most in zip(line.median, line.most)],
            ]
            colour = COLOURS[line.rival]
            axes.errorbar(
                line.n, line.median, errors, color=colour, marker="o", ms=4, capsize=2, label=NAMES[line.rival]
            )
        axes.set(xscale="log", yscale="log", xlabel="processes", title=title)
    two[0].set_ylabel("ns per communication")
    figure.legend(*two[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def memory(result: dict, pyplot: Any) -> Any:
    figure, axes = pyplot.subplots(figsize=(7, 3))
    names = [NAMES[rival] for rival, _ in bars(result, "shared")]
    for offset, channels, title, shade in (
        (-0.2, "shared", "one channel for all", 1.0),
        (0.2, "own", "a channel each", 0.5),
    ):
        found = bars(result, channels)
        drawn = axes.barh(
            [place + offset for place in range(len(found))],
            [size for _, size in found],
            0.38,
            color=[COLOURS[rival] for rival, _ in found],
            alpha=shade,
        )
        axes.bar_label(drawn, [f"{size:,.0f}, {title}" for _, size in found], padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("bytes per process that waits")
    axes.margins(x=0.35)
    return figure


def latency(result: dict, pyplot: Any) -> Any:
    figure, three = pyplot.subplots(1, 3, figsize=(10, 3.8), sharey=True)
    titles = {
        "sleep": "a tick, to a task that sleeps",
        "call": "a tick, to a callback",
        "round_trip": "a round trip of the two",
    }
    for axes, (kind, title) in zip(three, titles.items()):
        for rival, values in times(result, kind):
            axes.plot(
                TIMES, [value / 1e6 for value in values], color=COLOURS[rival], marker="o", ms=4, label=NAMES[rival]
            )
        axes.axhline(1, color="#444444", lw=0.8, ls=":")
        axes.set(yscale="log", title=title, xlabel="percentile")
    three[0].set_ylabel("ms")
    figure.legend(*three[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


DRAWN = {"communication": communication, "memory": memory, "latency": latency}


def draw(result: dict, folder: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context(STYLE):
        for name, function in DRAWN.items():
            figure = function(result, pyplot)
            for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
                written.append(folder / f"{name}.{suffix}")
                figure.savefig(written[-1], metadata=metadata, dpi=110)
            pyplot.close(figure)
    return written


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="?", default=ROOT / "benches/results/scale.json", help="of scale.py")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs/plots", help="where the plots go")
    args = parser.parse_args(argv)
    for path in draw(json.loads(args.json.read_text()), args.folder):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
