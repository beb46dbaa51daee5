"""The geometry of the report's charts: numbers in, coordinates out. Colours and markup are the template's."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_MOST_BARS = 10


@dataclass(frozen=True)
class Bar:
    """A pair of bars: the shares of the reference and of the window in one bin or category, and their heights in pixels."""

    label: str
    reference_share: float
    window_share: float
    x: float
    width: float
    reference_height: float
    window_height: float


@dataclass(frozen=True)
class Distribution:
    """Pairs of bars on a canvas of `width` x `height` pixels, with the labels of its two ends (empty for categories)."""

    title: str
    bars: tuple[Bar, ...]
    width: int
    height: int
    low_label: str
    high_label: str
    categorical: bool


@dataclass(frozen=True)
class Trend:
    """A line over the windows on a canvas of `width` x `height` pixels.

    `points` are (x, y, label, alert); `segments` join neighbours that both have a value; `threshold_y` is None where there is
    no threshold.
    """

    points: tuple[tuple[float, float, str, bool], ...]
    segments: tuple[tuple[float, float, float, float], ...]
    threshold_y: float | None
    width: int
    height: int


def number_text(value: float) -> str:
    """A number as people read it: at most four significant digits, thousands separated."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2e}"


def numeric_distribution(title: str, reference: np.ndarray, window: np.ndarray, width: int, height: int) -> Distribution:
    """Histograms of two samples in shared bins; the 0.5 % at each end fall into the outer bins, missing values into none."""
    reference, window = reference[np.isfinite(reference)], window[np.isfinite(window)]
    pooled = np.concatenate([reference, window]).astype(np.float64)
    low, high = (float(np.quantile(pooled, share)) for share in (0.005, 0.995)) if len(pooled) else (0.0, 1.0)
    distinct = len(np.unique(pooled))
    if high <= low:
        low, high = low - 0.5, low + 0.5
    edges = np.linspace(low, high, min(24, max(distinct, 2)) + 1)
    shares = [np.histogram(np.clip(values, low, high), bins=edges)[0] / max(len(values), 1) for values in (reference, window)]
    labels = [f"{number_text(start)} to {number_text(end)}" for start, end in pairwise(edges)]
    bars = _bars(labels, shares[0], shares[1], width, height)
    return Distribution(title, bars, width, height, number_text(low), number_text(high), categorical=False)


def categorical_distribution(title: str, reference: np.ndarray, window: np.ndarray, width: int, height: int) -> Distribution:
    """Shares of the most frequent categories of both samples together, and of all others; "" shows as "(missing)"."""
    samples = [dict(zip(*np.unique(values.astype(str), return_counts=True), strict=True)) for values in (reference, window)]
    sizes = [max(len(reference), 1), max(len(window), 1)]
    weight = {key: max(samples[side].get(key, 0) / sizes[side] for side in (0, 1)) for key in {*samples[0], *samples[1]}}
    ranked = sorted(weight, key=lambda key: (-weight[key], key))
    categories = ranked[:_MOST_BARS]
    shares = [[sample.get(key, 0) / size for key in categories] for sample, size in zip(samples, sizes, strict=True)]
    labels = [key or "(missing)" for key in categories]
    if len(ranked) > _MOST_BARS:
        labels.append(f"{len(ranked) - _MOST_BARS} others")
        for side in (0, 1):
            shares[side].append(max(0.0, 1 - sum(shares[side])) if samples[side] else 0.0)
    bars = _bars(labels, np.array(shares[0]), np.array(shares[1]), width, height)
    return Distribution(title, bars, width, height, "", "", categorical=True)


def trend(
    *,
    values: Sequence[float | None],
    labels: Sequence[str],
    alerts: Sequence[bool],
    threshold: float | None,
    from_zero: bool,
    width: int,
    height: int,
) -> Trend:
    """A line through `values`; None leaves a gap. The axis starts at zero or, without `from_zero`, at the smallest value."""
    margin = 5.0
    numbers = [value for value in (*values, threshold) if value is not None]
    bottom = 0.0 if from_zero or not numbers else min(numbers)
    span = max(max(numbers, default=0.0) - bottom, 1e-12)
    step = (width - 2 * margin) / max(len(values) - 1, 1)

    def y_of(value: float) -> float:
        return round(height - margin - (height - 2 * margin) * (value - bottom) / span, 2)

    places = [
        None if value is None else (round(margin + step * position, 2), y_of(value)) for position, value in enumerate(values)
    ]
    points = tuple(
        (*place, f"{label}: {number_text(value)}", alert)
        for place, value, label, alert in zip(places, values, labels, alerts, strict=True)
        if place is not None and value is not None
    )
    segments = tuple((*start, *end) for start, end in pairwise(places) if start and end)
    return Trend(points, segments, None if threshold is None else y_of(threshold), width, height)


def _bars(labels: Sequence[str], reference: np.ndarray, window: np.ndarray, width: int, height: int) -> tuple[Bar, ...]:
    top = max(float(np.max(reference, initial=0)), float(np.max(window, initial=0)), 1e-12)
    slot = width / max(len(labels), 1)
    return tuple(
        Bar(
            label=label,
            reference_share=float(reference[position]),
            window_share=float(window[position]),
            x=round(position * slot, 2),
            width=round(slot, 2),
            reference_height=round(height * float(reference[position]) / top, 2),
            window_height=round(height * float(window[position]) / top, 2),
        )
        for position, label in enumerate(labels)
    )
