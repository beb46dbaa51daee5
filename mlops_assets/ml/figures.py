"""Small PNG figures: their colours, axes and text, and the markdown that shows them in the Dagster UI.

Plain matplotlib with the Agg canvas and no pyplot, so that nothing global is left behind. Every image stays under 60 kB.
"""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


BLUE, ORANGE, GREY = "#2563eb", "#ea580c", "#9ca3af"
_POINTS = 400
_DOTS_PER_INCH = 80
_NAME_LENGTH = 24


def markdown_image(title: str, png: bytes) -> str:
    """Markdown that shows `png` under the alternative text `title`, embedded as a data URI."""
    return f"![{title}]({data_uri(png)})"


def data_uri(png: bytes) -> str:
    """`png` as an address that holds the image itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def create_figure(width: float, height: float, columns: int) -> "tuple[Figure, tuple[Axes, ...]]":
    """A figure of `width` by `height` inches with its axes side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, tuple(figure.subplots(1, columns, squeeze=False)[0])


def label_axes(axes: "Axes", title: str, x_label: str, y_label: str) -> None:
    """Give the axes their title, labels and grid."""
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def thin_curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 400 points of a curve, evenly spread over its points."""
    keep = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(int))
    return x[keep], y[keep]


def shorten(text: str) -> str:
    """`text` cut to what fits beside an axis."""
    return escape_math(text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…")


def escape_math(text: str) -> str:
    """`text` of the data as it is: Matplotlib takes what stands between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def png_image(figure: "Figure") -> bytes:
    """`figure` drawn as a PNG image of 64 colours."""
    from PIL import Image

    canvas = figure.canvas
    canvas.draw()
    # 64 colours are enough for these plots and make the file two to three times smaller; equal data gives equal bytes.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64)  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
