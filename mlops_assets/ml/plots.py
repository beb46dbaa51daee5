"""Figures of an evaluation as small PNG images, and the markdown that shows them in the Dagster UI.

Plain matplotlib with the Agg canvas and no pyplot, so that nothing global is left behind. Every image stays under 60 kB.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.ml.evaluation import Evaluation, SliceResult
from mlops_assets.ml.importance import Importances
from mlops_assets.ml.report_rows import DriftRow, PerformanceRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2563eb", "#ea580c", "#9ca3af"
_POINTS = 400
_DOTS_PER_INCH = 80
_NAME_LENGTH = 24
_TITLE_LENGTH = 40
_PANELS = 4


def markdown_image(title: str, png: bytes) -> str:
    """Markdown that shows `png` under the alternative text `title`, embedded as a data URI."""
    return f"![{title}]({data_uri(png)})"


def data_uri(png: bytes) -> str:
    """`png` as an address that holds the image itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def ranking_plot(labels: np.ndarray, probabilities: np.ndarray) -> bytes:
    """ROC curve and precision-recall curve side by side. `labels` are 0 and 1; both must occur (ValueError otherwise)."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if not 0 < labels.sum() < len(labels):
        raise ValueError("A ranking plot needs rows of both classes.")
    figure, (left, right) = _figure(8.4, 3.8, 2)
    false_positive, true_positive, _ = roc_curve(labels, probabilities)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
    left.plot(*_thin(false_positive, true_positive), color=BLUE, label=f"model ({roc_auc_score(labels, probabilities):.3f})")
    _describe(left, "ROC curve (area)", "false positive rate", "true positive rate")
    left.legend(loc="lower right", frameon=False)
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    rate = float(np.mean(labels))
    right.axhline(rate, color=GREY, linestyle="--", linewidth=1, label=f"label rate ({rate:.3f})")
    right.plot(*_thin(recall, precision), color=BLUE, label=f"model ({average_precision_score(labels, probabilities):.3f})")
    _describe(right, "Precision-recall curve (average precision)", "recall", "precision")
    right.set_ylim(0, 1.02)
    right.legend(loc="upper right", frameon=False)
    return _png(figure)


def calibration_plot(evaluation: Evaluation) -> bytes:
    """The calibration curve: share of positives against mean probability, in bins of equal frequency."""
    if not evaluation.calibration:
        raise ValueError(f"There is no calibration curve of {evaluation.problem}.")
    figure, (axes,) = _figure(4.6, 4.2, 1)
    predicted = [point.mean_probability for point in evaluation.calibration]
    observed = [point.positive_share for point in evaluation.calibration]
    limit = min(1.0, max(*predicted, *observed, 0.05) * 1.08)
    axes.plot([0, limit], [0, limit], color=GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(predicted, observed, color=BLUE, marker="o", markersize=4, label="model")
    error = evaluation.metrics["expected_calibration_error"]
    _describe(axes, f"Calibration (expected error {error:.3f})", "mean probability", "share of positives")
    axes.set_xlim(0, limit)
    axes.set_ylim(0, limit)
    axes.legend(loc="upper left", frameon=False)
    return _png(figure)


def score_plot(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> bytes:
    """Histogram of the probabilities by label, with the decision threshold."""
    figure, (axes,) = _figure(6.4, 3.4, 1)
    edges = np.linspace(0, 1, 41).tolist()
    for value, color, name in ((0, BLUE, "negative"), (1, ORANGE, "positive")):
        chosen = probabilities[labels == value]
        axes.hist(chosen, bins=edges, color=color, alpha=0.6, label=f"{name} ({len(chosen):,})")
    axes.axvline(threshold, color="black", linewidth=1, linestyle=":", label=f"threshold {threshold:.2f}")
    _describe(axes, "Predicted probability by label", "probability", "rows")
    axes.legend(frameon=False)
    return _png(figure)


def slice_plot(slices: Sequence[SliceResult], metric: str, overall: float) -> bytes:
    """Bars of `metric` by value of one slice column (the 25 largest slices) with their intervals, and the overall value as a line."""
    shown = [each for each in slices if each.metrics[metric] is not None][:25]
    if not shown:
        raise ValueError(f"No slice has the metric {metric!r}.")
    figure, (axes,) = _figure(6.4, 1.2 + 0.26 * len(shown), 1)
    values = [float(each.metrics[metric] or 0.0) for each in shown]
    names = [f"{_shorten(each.value)} ({each.rows:,})" for each in shown]
    axes.barh(names, values, color=BLUE, height=0.65)
    ends = values
    intervals = [each.intervals.get(metric) for each in shown]
    for position, (value, interval) in enumerate(zip(values, intervals, strict=True)):
        if interval is not None:
            axes.plot([interval.low, interval.high], [position, position], color="black", linewidth=1.2, alpha=0.7)
            ends = [*ends[:position], max(value, interval.high), *ends[position + 1 :]]
    axes.invert_yaxis()
    axes.axvline(overall, color=ORANGE, linewidth=1.5, label=f"all rows ({overall:.3g})")
    for position, (value, end) in enumerate(zip(values, ends, strict=True)):
        axes.text(
            end,
            position,
            f" {value:.3g}",
            va="center",
            fontsize=7,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    title = f"{metric} by {shown[0].column}"
    _describe(axes, f"{title}, with 95 % intervals" if any(intervals) else title, metric, "")
    axes.margins(x=0.12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / len(shown) - 0.08), frameon=False)
    return _png(figure)


def importance_plot(importances: Importances) -> bytes:
    """Bars of the 20 most important features, with the standard deviation over the repeats."""
    shown = importances.features[:20]
    figure, (axes,) = _figure(7.4, 1.1 + 0.24 * len(shown), 1)
    axes.barh(
        range(len(shown)),
        [each.loss for each in shown],
        xerr=[each.deviation for each in shown],
        color=BLUE,
        height=0.65,
        error_kw={"elinewidth": 1.2, "alpha": 0.7},
    )
    axes.set_yticks(range(len(shown)), [_plain(each.feature) for each in shown])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    title = f"Permutation importance ({importances.rows:,} rows, {importances.repeats} times)"
    _describe(axes, title, f"{importances.metric} lost when the feature is shuffled", "")
    return _png(figure)


def confusion_plot(labels: np.ndarray, predicted_labels: np.ndarray, classes: Sequence[int | str]) -> bytes:
    """Confusion matrix: rows per true class and predicted class, shaded by the share of the true class."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predicted_labels, labels=list(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.4 + 0.55 * len(classes)
    figure, (axes,) = _figure(side + 0.4, side, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            color = "white" if shares[row, column] > 0.55 else "black"
            text = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    names = [_shorten(str(value)) for value in classes]
    axes.set_xticks(range(len(classes)), names)
    axes.set_yticks(range(len(classes)), names)
    _describe(axes, "Confusion matrix", "predicted", "true")
    axes.grid(False)
    return _png(figure)


def residual_plot(labels: np.ndarray, values: np.ndarray) -> bytes:
    """Predicted against true values (density), and the histogram of the residuals (true minus predicted)."""
    figure, (left, right) = _figure(8.4, 3.8, 2)
    residuals = labels - values
    low, high = float(min(labels.min(), values.min())), float(max(labels.max(), values.max()))
    left.hexbin(labels, values, gridsize=35, bins="log", cmap="Blues", mincnt=1, extent=(low, high, low, high))
    left.plot([low, high], [low, high], color=ORANGE, linestyle="--", linewidth=1)
    _describe(left, "Predicted against true", "true", "predicted")
    edge = float(np.quantile(np.abs(residuals), 0.99)) or 1.0
    right.hist(np.clip(residuals, -edge, edge), bins=50, color=BLUE)
    right.axvline(0, color="black", linewidth=1, linestyle=":")
    _describe(right, "Residuals (outer 1 % at the edges)", "true - predicted", "rows")
    return _png(figure)


def drift_plot(rows: Sequence[DriftRow]) -> bytes:
    """Effect of the 20 most drifted columns by window, shaded; an alert carries its value."""
    whole = [row for row in rows if row.slice is None]
    strongest: dict[str, float] = {}
    for row in whole:
        strongest[row.feature] = max(strongest.get(row.feature, 0.0), row.effect or 0.0)
    features = sorted(strongest, key=lambda name: -strongest[name])[:20]
    windows = sorted({row.window for row in whole})
    effects, alerts = np.zeros((len(features), len(windows))), np.zeros((len(features), len(windows)), dtype=bool)
    figure, (axes,) = _figure(2.6 + 0.75 * len(windows), 1.0 + 0.26 * len(features), 1)
    for row in whole:
        if row.feature in features:
            place = (features.index(row.feature), windows.index(row.window))
            effects[place] = max(effects[place], row.effect or 0.0)
            alerts[place] |= row.alert
    for feature, window in zip(*np.nonzero(alerts), strict=True):
        axes.text(window, feature, f"{effects[feature, window]:.2f}", ha="center", va="center", fontsize=7)
    axes.imshow(effects, cmap="Oranges", vmin=0, vmax=max(0.5, float(effects.max(initial=0))), aspect="auto")
    axes.set_xticks(range(len(windows)), windows, rotation=45, ha="right")
    axes.set_yticks(range(len(features)), ["all together" if name == "*" else _shorten(name) for name in features])
    _describe(axes, "Drift by window (alerts with their effect)", "", "")
    axes.grid(False)
    return _png(figure)


def performance_plot(rows: Sequence[PerformanceRow], metric: str) -> bytes:
    """`metric` by window: the estimate with its bounds, the realised value (hollow while labels are missing), hold-out and threshold."""
    figure, (axes,) = _figure(max(4.6, 2.2 + 0.6 * len(rows)), 3.4, 1)
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
    _describe(axes, f"{metric} by window", "", "")
    axes.legend(fontsize=7, frameon=False, ncols=2)
    return _png(figure)


def measures_plot(title: str, series: Mapping[str, Sequence[tuple[str, float | None, float]]]) -> bytes:
    """The measures of a monitor by window, a panel for each of the first four subjects: window, value and limit in order of time."""
    shown = dict(list(series.items())[:_PANELS])
    figure, panels = _figure(max(4.6, 3.2 * len(shown)), 3.0, len(shown))
    for axes, (subject, points) in zip(panels, shown.items(), strict=True):
        places = np.arange(len(points))
        axes.plot(
            places, np.array([value for _, value, _ in points], dtype=float), "o-", color=ORANGE, markersize=4, label="value"
        )
        axes.plot(places, [limit for _, _, limit in points], color=BLUE, linewidth=1, linestyle="--", label="limit")
        axes.set_xticks(places, [window for window, _, _ in points], rotation=45, ha="right")
        _describe(axes, f"{title}: {subject}"[:_TITLE_LENGTH], "", "")
    panels[0].legend(fontsize=7, frameon=False)
    return _png(figure)


def feature_statistics_plot(
    partitions: Sequence[str], series: Mapping[str, Sequence[tuple[float | None, float | None]]]
) -> bytes:
    """Missing share (left) and mean (right) of every feature by partition, shaded; grey = no value.

    `series` holds a pair of both for each of `partitions` by feature. A mean is shown as its distance from the feature's mean over
    all partitions, in standard deviations of the means, so that features of any unit can be compared.
    """
    figure, (left, right) = _figure(11, 1.6 + 0.16 * len(series), 2)
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
    shown = np.unique(np.linspace(0, len(partitions) - 1, min(len(partitions), 6)).astype(int))
    for axes, title in ((left, "Missing share (0 to 1)"), (right, "Mean (-3 to 3 standard deviations)")):
        _describe(axes, title, "", "")
        axes.set_facecolor(GREY)
        axes.grid(False)
        axes.set_xticks(shown, [partitions[position] for position in shown], rotation=45, ha="right")
    left.set_yticks(range(len(series)), [_plain(name.partition(".")[2] or name) for name in series], fontsize=6)
    right.set_yticks([])
    return _png(figure)


def _figure(width: float, height: float, columns: int) -> "tuple[Figure, tuple[Axes, ...]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, tuple(figure.subplots(1, columns, squeeze=False)[0])


def _describe(axes: "Axes", title: str, x_label: str, y_label: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = np.unique(np.linspace(0, len(x) - 1, _POINTS).astype(int))
    return x[keep], y[keep]


def _shorten(text: str) -> str:
    return _plain(text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…")


def _plain(text: str) -> str:
    """`text` of the data as it is: Matplotlib takes what stands between two dollar signs for a formula."""
    return text.replace("$", r"\$")


def _png(figure: "Figure") -> bytes:
    from PIL import Image

    canvas = figure.canvas
    canvas.draw()
    # 64 colours are enough for these plots and make the file two to three times smaller; equal data gives equal bytes.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64)  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
