"""Pictures of the reports: one set of colours, and SVG that needs no script to be seen."""

import io

import matplotlib as mpl
from matplotlib.figure import Figure

STEEL, AMBER, RED, GREEN = "#2b5c8a", "#d98b00", "#b3261e", "#2e7d32"
# A line of fewer points is hard to see.
LEAST_POINTS = 10


def figure_of(width: float, height: float, layout: str = "constrained") -> Figure:
    """Return an empty picture of a size in inches; without a layout, its maker leaves room beside the axes."""
    return Figure(figsize=(width, height), layout=layout)


def svg(figure: Figure, salt: str) -> str:
    """Return a picture as an element of HTML; ``salt`` tells the identifiers of pictures on one page apart."""
    stream = io.StringIO()
    # Letters stay letters: a page of many plots is then a quarter of the size.
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
