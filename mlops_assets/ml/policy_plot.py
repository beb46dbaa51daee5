"""The figure of a policy comparison: every arm over time."""

from collections.abc import Mapping
from datetime import date

import numpy as np

from mlops_assets.ml.figures import GREY, create_figure, label_axes, png_image
from mlops_assets.ml.prequential import ArmResult

_SMOOTHED = 5
_EMPHASISED = {"live": ("#ea580c", 2.2), "never": ("#111827", 1.4), "sliding": ("#2563eb", 1.4), "expanding": ("#059669", 1.4)}
_MARKS = {"retrain": "o", "roll back": "X", "recalibrate": "|"}


def policy_plot(results: Mapping[str, ArmResult], windows: list[date], metric: str) -> bytes:
    """The metric of each arm by window, a running mean of five where there are enough, and what the arm `live` did as marks."""
    figure, (axes,) = create_figure(9.0, 4.2, 1)
    length = _SMOOTHED if len(windows) >= 4 * _SMOOTHED else 1
    places = np.array(windows, dtype="datetime64[D]")
    for name, arm in results.items():
        colour, width = _EMPHASISED.get(name, (GREY, 0.8))
        values = _running_mean(np.array(arm.metrics, dtype=float), length)
        axes.plot(places, values, color=colour, linewidth=width, label=name if name in _EMPHASISED else None)
        if name == "live":
            for event in arm.events:
                if not event.refused:
                    at = windows.index(event.day)
                    axes.plot(places[at], values[at], _MARKS[event.action], color=colour, markersize=7)
    label_axes(axes, f"{metric} by window (o training, x rollback, | recalibration of `live`; grey: other arms)", "", metric)
    axes.legend(fontsize=8, ncols=4, frameon=False)
    return png_image(figure)


def _running_mean(values: np.ndarray, length: int) -> np.ndarray:
    """The mean of each value and those before it, `length` of them where there are so many; NaN counts for nothing."""
    return np.array([np.nanmean(values[max(0, place - length + 1) : place + 1]) for place in range(len(values))])
