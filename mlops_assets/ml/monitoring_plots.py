"""Figures by window or partition: drift, performance, statistics of features."""

from collections.abc import Mapping, Sequence

import numpy as np

from mlops_assets.ml.figures import BLUE, GREY, ORANGE, create_figure, escape_math, label_axes, png_image, shorten
from mlops_assets.ml.report_rows import DriftRow, PerformanceRow

_TITLE_LENGTH = 40
_PANELS = 4


def drift_plot(rows: Sequence[DriftRow]) -> bytes:
    """Effect of the 20 most drifted columns by window, shaded; an alert carries its value."""
    whole = [row for row in rows if row.slice is None]
    strongest: dict[str, float] = {}
    for row in whole:
        strongest[row.feature] = max(strongest.get(row.feature, 0.0), row.effect or 0.0)
    features = sorted(strongest, key=lambda name: -strongest[name])[:20]
    windows = sorted({row.window for row in whole})
    effects, alerts = np.zeros((len(features), len(windows))), np.zeros((len(features), len(windows)), dtype=bool)
    figure, (axes,) = create_figure(2.6 + 0.75 * len(windows), 1.0 + 0.26 * len(features), 1)
    for row in whole:
        if row.feature in features:
            place = (features.index(row.feature), windows.index(row.window))
            effects[place] = max(effects[place], row.effect or 0.0)
            alerts[place] |= row.alert
    for feature, window in zip(*np.nonzero(alerts), strict=True):
        axes.text(window, feature, f"{effects[feature, window]:.2f}", ha="center", va="center", fontsize=7)
    axes.imshow(effects, cmap="Oranges", vmin=0, vmax=max(0.5, float(effects.max(initial=0))), aspect="auto")
    axes.set_xticks(range(len(windows)), windows, rotation=45, ha="right")
    axes.set_yticks(range(len(features)), ["all together" if name == "*" else shorten(name) for name in features])
    label_axes(axes, "Drift by window (alerts with their effect)", "", "")
    axes.grid(False)
    return png_image(figure)


def performance_plot(rows: Sequence[PerformanceRow], metric: str) -> bytes:
    """`metric` by window: the estimate with its bounds, the realised value (hollow while labels are missing), hold-out and threshold."""
    figure, (axes,) = create_figure(max(4.6, 2.2 + 0.6 * len(rows)), 3.4, 1)
    places = np.arange(len(rows))

    def column(name: str) -> np.ndarray:
        return np.array([getattr(row, name) for row in rows], dtype=float)

    estimated = column("estimated")
    bounds = np.abs(np.array([estimated - column("estimated_lower"), column("estimated_upper") - estimated]))
    axes.errorbar(
        places - 0.06,
        estimated,
        yerr=bounds,
        color=GREY,
        marker="s",
        markersize=4,
        capsize=3,
        linestyle="none",
        label="estimated",
    )
    for complete, fill, text in ((True, ORANGE, "realised"), (False, "white", "realised, partial")):
        chosen = np.array([row.complete == complete and row.realised is not None for row in rows], dtype=bool)
        if chosen.any():
            axes.plot(places[chosen] + 0.06, column("realised")[chosen], "o", color=ORANGE, markerfacecolor=fill, label=text)
    axes.plot(places, column("reference"), color=BLUE, linewidth=1, label="hold-out")
    axes.plot(places, column("threshold"), color=BLUE, linewidth=1, linestyle="--", label="threshold")
    axes.set_xticks(places, [row.window for row in rows], rotation=45, ha="right")
    label_axes(axes, f"{metric} by window", "", "")
    axes.legend(fontsize=7, frameon=False, ncols=2)
    return png_image(figure)


def measures_plot(title: str, series: Mapping[str, Sequence[tuple[str, float | None, float]]]) -> bytes:
    """The measures of a monitor by window, a panel for each of the first four subjects: window, value and limit in order of time."""
    plotted_series = dict(list(series.items())[:_PANELS])
    figure, panels = create_figure(max(4.6, 3.2 * len(plotted_series)), 3.0, len(plotted_series))
    for axes, (subject, points) in zip(panels, plotted_series.items(), strict=True):
        places = np.arange(len(points))
        axes.plot(
            places, np.array([value for _, value, _ in points], dtype=float), "o-", color=ORANGE, markersize=4, label="value"
        )
        axes.plot(places, [limit for _, _, limit in points], color=BLUE, linewidth=1, linestyle="--", label="limit")
        axes.set_xticks(places, [window for window, _, _ in points], rotation=45, ha="right")
        label_axes(axes, f"{title}: {subject}"[:_TITLE_LENGTH], "", "")
    panels[0].legend(fontsize=7, frameon=False)
    return png_image(figure)


def feature_statistics_plot(
    partitions: Sequence[str], series: Mapping[str, Sequence[tuple[float | None, float | None]]]
) -> bytes:
    """Missing share (left) and mean (right) of every feature by partition, shaded; grey = no value.

    `series` holds a pair of both for each of `partitions` by feature. A mean is shown as its distance from the feature's mean over
    all partitions, in standard deviations of the means, so that features of any unit can be compared.
    """
    figure, (left, right) = create_figure(11, 1.6 + 0.16 * len(series), 2)
    values = np.array(
        [[(np.nan if m is None else m, np.nan if v is None else v) for m, v in row] for row in series.values()], float
    )
    means = values[:, :, 1]
    known = ~np.isnan(means)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centre = np.nansum(means, axis=1, keepdims=True) / count
    spread = np.sqrt(np.nansum((means - centre) ** 2, axis=1, keepdims=True) / count)
    standardised = (means - centre) / np.where(spread > 1e-12 * np.abs(centre), spread, 1.0)
    left.imshow(values[:, :, 0], cmap="Oranges", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    right.imshow(standardised, cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto", interpolation="nearest")
    ticks = np.unique(np.linspace(0, len(partitions) - 1, min(len(partitions), 6)).astype(int))
    for axes, title in ((left, "Missing share (0 to 1)"), (right, "Mean (-3 to 3 standard deviations)")):
        label_axes(axes, title, "", "")
        axes.set_facecolor(GREY)
        axes.grid(False)
        axes.set_xticks(ticks, [partitions[position] for position in ticks], rotation=45, ha="right")
    left.set_yticks(range(len(series)), [escape_math(name.partition(".")[2] or name) for name in series], fontsize=6)
    right.set_yticks([])
    return png_image(figure)
