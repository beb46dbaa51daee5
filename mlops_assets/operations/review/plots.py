"""Figures of the report on a change."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_assets.ml.figures import BLUE, GREY, ORANGE, create_figure, label_axes, png_image, shorten

if TYPE_CHECKING:
    from mlops_assets.operations.review.model_review import SliceChange

_MOST_SLICES = 30


def differences_plot(slices: "Sequence[SliceChange]", metric: str) -> bytes:
    """Draw the metric after minus before in each slice, with its interval; the largest 30 slices."""
    shown = [part for part in slices if part.metric.before is not None and part.metric.after is not None][:_MOST_SLICES]
    figure, (axes,) = create_figure(7.2, 1.3 + 0.24 * len(shown), 1)
    axes.axvline(0, color=GREY, linestyle="--", linewidth=1)
    colours = {"worse": ORANGE, "better": BLUE, "no difference": GREY}
    for position, part in enumerate(shown):
        change = part.metric
        colour = colours[change.verdict]
        if change.low is not None and change.high is not None:
            axes.plot([change.low, change.high], [position, position], color=colour, linewidth=2)
        axes.plot([(change.after or 0.0) - (change.before or 0.0)], [position], marker="o", markersize=5, color=colour)
    axes.set_yticks(range(len(shown)), [shorten(f"{part.column} {part.value}") for part in shown])
    axes.invert_yaxis()
    label_axes(axes, f"{metric}: after minus before", "difference with its 95% interval", "")
    return png_image(figure)
