"""Figures of an evaluation: ranking, calibration, scores, slices, importances, confusion matrix, residuals."""

from collections.abc import Sequence

import numpy as np

from mlops_assets.ml.evaluation import Evaluation, SliceResult
from mlops_assets.ml.figures import BLUE, GREY, ORANGE, create_figure, escape_math, label_axes, png_image, shorten, thin_curve
from mlops_assets.ml.importance import Importances


def ranking_plot(labels: np.ndarray, probabilities: np.ndarray) -> bytes:
    """ROC curve and precision-recall curve side by side. `labels` are 0 and 1; both must occur (ValueError otherwise)."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

    if not 0 < labels.sum() < len(labels):
        raise ValueError("A ranking plot needs rows of both classes.")
    figure, (left, right) = create_figure(8.4, 3.8, 2)
    false_positive, true_positive, _ = roc_curve(labels, probabilities)
    left.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="chance")
    left.plot(*thin_curve(false_positive, true_positive), color=BLUE, label=f"model ({roc_auc_score(labels, probabilities):.3f})")
    label_axes(left, "ROC curve (area)", "false positive rate", "true positive rate")
    left.legend(loc="lower right", frameon=False)
    precision, recall, _ = precision_recall_curve(labels, probabilities)
    rate = float(np.mean(labels))
    right.axhline(rate, color=GREY, linestyle="--", linewidth=1, label=f"label rate ({rate:.3f})")
    right.plot(*thin_curve(recall, precision), color=BLUE, label=f"model ({average_precision_score(labels, probabilities):.3f})")
    label_axes(right, "Precision-recall curve (average precision)", "recall", "precision")
    right.set_ylim(0, 1.02)
    right.legend(loc="upper right", frameon=False)
    return png_image(figure)


def calibration_plot(evaluation: Evaluation) -> bytes:
    """The calibration curve: share of positives against mean probability, in bins of equal frequency."""
    if not evaluation.calibration:
        raise ValueError(f"There is no calibration curve of {evaluation.problem}.")
    figure, (axes,) = create_figure(4.6, 4.2, 1)
    predicted = [point.mean_probability for point in evaluation.calibration]
    observed = [point.positive_share for point in evaluation.calibration]
    limit = min(1.0, max(*predicted, *observed, 0.05) * 1.08)
    axes.plot([0, limit], [0, limit], color=GREY, linestyle="--", linewidth=1, label="perfect")
    axes.plot(predicted, observed, color=BLUE, marker="o", markersize=4, label="model")
    error = evaluation.metrics["expected_calibration_error"]
    label_axes(axes, f"Calibration (expected error {error:.3f})", "mean probability", "share of positives")
    axes.set_xlim(0, limit)
    axes.set_ylim(0, limit)
    axes.legend(loc="upper left", frameon=False)
    return png_image(figure)


def score_plot(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> bytes:
    """Histogram of the probabilities by label, with the decision threshold."""
    figure, (axes,) = create_figure(6.4, 3.4, 1)
    edges = np.linspace(0, 1, 41).tolist()
    for value, color, name in ((0, BLUE, "negative"), (1, ORANGE, "positive")):
        chosen = probabilities[labels == value]
        axes.hist(chosen, bins=edges, color=color, alpha=0.6, label=f"{name} ({len(chosen):,})")
    axes.axvline(threshold, color="black", linewidth=1, linestyle=":", label=f"threshold {threshold:.2f}")
    label_axes(axes, "Predicted probability by label", "probability", "rows")
    axes.legend(frameon=False)
    return png_image(figure)


def slice_plot(slices: Sequence[SliceResult], metric: str, overall: float) -> bytes:
    """Bars of `metric` by value of one slice column (the 25 largest slices) with their intervals, and the overall value as a line."""
    largest = [result for result in slices if result.metrics[metric] is not None][:25]
    if not largest:
        raise ValueError(f"No slice has the metric {metric!r}.")
    figure, (axes,) = create_figure(6.4, 1.2 + 0.26 * len(largest), 1)
    values = [float(result.metrics[metric] or 0.0) for result in largest]
    names = [f"{shorten(result.value)} ({result.rows:,})" for result in largest]
    axes.barh(names, values, color=BLUE, height=0.65)
    ends = values
    intervals = [result.intervals.get(metric) for result in largest]
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
    title = f"{metric} by {largest[0].column}"
    label_axes(axes, f"{title}, with 95 % intervals" if any(intervals) else title, metric, "")
    axes.margins(x=0.12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.5 / len(largest) - 0.08), frameon=False)
    return png_image(figure)


def importance_plot(importances: Importances) -> bytes:
    """Bars of the 20 most important features, with the standard deviation over the repeats."""
    features = importances.features[:20]
    figure, (axes,) = create_figure(7.4, 1.1 + 0.24 * len(features), 1)
    axes.barh(
        range(len(features)),
        [importance.loss for importance in features],
        xerr=[importance.deviation for importance in features],
        color=BLUE,
        height=0.65,
        error_kw={"elinewidth": 1.2, "alpha": 0.7},
    )
    axes.set_yticks(range(len(features)), [escape_math(importance.feature) for importance in features])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    title = f"Permutation importance ({importances.rows:,} rows, {importances.repeats} times)"
    label_axes(axes, title, f"{importances.metric} lost when the feature is shuffled", "")
    return png_image(figure)


def confusion_plot(labels: np.ndarray, predicted_labels: np.ndarray, classes: Sequence[int | str]) -> bytes:
    """Confusion matrix: rows per true class and predicted class, shaded by the share of the true class."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(labels, predicted_labels, labels=list(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.4 + 0.55 * len(classes)
    figure, (axes,) = create_figure(side + 0.4, side, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(classes)):
        for column in range(len(classes)):
            color = "white" if shares[row, column] > 0.55 else "black"
            text = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    names = [shorten(str(value)) for value in classes]
    axes.set_xticks(range(len(classes)), names)
    axes.set_yticks(range(len(classes)), names)
    label_axes(axes, "Confusion matrix", "predicted", "true")
    axes.grid(False)
    return png_image(figure)


def residual_plot(labels: np.ndarray, values: np.ndarray) -> bytes:
    """Predicted against true values (density), and the histogram of the residuals (true minus predicted)."""
    figure, (left, right) = create_figure(8.4, 3.8, 2)
    residuals = labels - values
    low, high = float(min(labels.min(), values.min())), float(max(labels.max(), values.max()))
    left.hexbin(labels, values, gridsize=35, bins="log", cmap="Blues", mincnt=1, extent=(low, high, low, high))
    left.plot([low, high], [low, high], color=ORANGE, linestyle="--", linewidth=1)
    label_axes(left, "Predicted against true", "true", "predicted")
    edge = float(np.quantile(np.abs(residuals), 0.99)) or 1.0
    right.hist(np.clip(residuals, -edge, edge), bins=50, color=BLUE)
    right.axvline(0, color="black", linewidth=1, linestyle=":")
    label_axes(right, "Residuals (outer 1 % at the edges)", "true - predicted", "rows")
    return png_image(figure)
