"""Probability calibration of a binary classifier: a curve from score to probability, in Python and as nodes of an ONNX graph.

`sigmoid`: Platt, "Probabilistic outputs for support vector machines" (1999), on the log-odds of the score. `isotonic`: the pool
adjacent violators of Zadrozny and Elkan (KDD 2002), joined by straight lines between the centres of the pools (Oron and Flournoy,
"Centered Isotonic Regression", 2017), so that rows of different scores stay ranked. Scikit-learn's own CalibratedClassifierCV with
one estimator needs folds that cover every row, which folds in time do not. All numbers are float32, as ONNX Runtime computes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import onnx

Method = Literal["isotonic", "sigmoid"]
Curve = Mapping[str, Any]
"""`{"slope", "intercept"}` of a sigmoid, or `{"scores", "probabilities"}`: rising float32 arrays of equal length, at least two."""

_MARGIN = np.float32(1e-6)
_MOST_KNOTS = 100


def fit_curve(method: Method, scores: np.ndarray, labels: np.ndarray) -> Curve:
    """The curve for `scores` [rows] (probabilities of the positive class, of rows not fitted on) and their `labels` (0 and 1).

    Raises ValueError when higher scores do not mean more positives: there is nothing to calibrate then.
    """
    curve = _fit_sigmoid(scores, labels) if method == "sigmoid" else _fit_isotonic(scores, labels)
    if curve is None:
        raise ValueError(
            f"The {method} calibration finds no more positives at higher out-of-fold scores: leave out training.calibration."
        )
    return curve


def apply_curve(curve: Curve, scores: np.ndarray) -> np.ndarray:
    """Calibrated probabilities of `scores` [rows], float32."""
    scores = scores.astype(np.float32)
    if "slope" in curve:
        odds = _log_odds(scores) * np.float32(curve["slope"]) + np.float32(curve["intercept"])
        return (np.float32(1) / (np.float32(1) + np.exp(-odds))).astype(np.float32)
    knots, heights, slopes = _segments(curve)
    position = np.searchsorted(knots[1:-1], scores, side="left")
    return heights[position] + slopes[position] * (np.clip(scores, knots[0], knots[-1]) - knots[position])


def append_curve(model: "onnx.ModelProto", curve: Curve, *, label: str, probabilities: str) -> None:
    """Bend the output `probabilities` [rows, 2] of `model` by `curve`, in place; `label` becomes the more probable class, 0 or 1."""
    from onnx import helper, numpy_helper

    graph = model.graph
    inner = {label: "uncalibrated_label", probabilities: "uncalibrated_probabilities"}
    for inner_node in graph.node:
        for names in (inner_node.input, inner_node.output):
            for place, name in enumerate(names):
                names[place] = inner.get(name, name)

    def constant(name: str, value: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"calibration_constant_{name}"))
        return f"calibration_constant_{name}"

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes))
        return output

    one = constant("one", np.array([1], dtype=np.float32))
    score = node(
        "Gather", [inner[probabilities], constant("positive", np.array([1], dtype=np.int64))], "calibration_score", axis=1
    )
    if "slope" in curve:
        low, high = constant("low", _MARGIN), constant("high", np.float32(1) - _MARGIN)
        clipped = node("Clip", [score, low, high], "calibration_clipped")
        odds = node("Div", [clipped, node("Sub", [one, clipped], "calibration_rest")], "calibration_odds")
        scaled = node(
            "Mul", [node("Log", [odds], "calibration_log"), constant("slope", np.float32(curve["slope"]))], "calibration_x"
        )
        shifted = node("Add", [scaled, constant("intercept", np.float32(curve["intercept"]))], "calibration_shifted")
        positive = node("Sigmoid", [shifted], "calibration_positive")
    else:
        knots, heights, slopes = _segments(curve)
        above = node("Greater", [score, constant("inner_knots", knots[1:-1].reshape(1, -1))], "calibration_above")
        counted = node("Cast", [above], "calibration_counted", to=helper.np_dtype_to_tensor_dtype(np.dtype(np.int32)))
        axis = constant("axis", np.array([1], dtype=np.int64))
        position = node("ReduceSum", [counted, axis], "calibration_segment", keepdims=1)
        start = node("Gather", [constant("knots", knots[:-1]), position], "calibration_start")
        height = node("Gather", [constant("heights", heights[:-1]), position], "calibration_height")
        slope = node("Gather", [constant("slopes", slopes), position], "calibration_slope")
        clipped = node("Clip", [score, constant("first", knots[0]), constant("last", knots[-1])], "calibration_clipped")
        rise = node("Mul", [slope, node("Sub", [clipped, start], "calibration_run")], "calibration_rise")
        positive = node("Add", [height, rise], "calibration_positive")
    node("Concat", [node("Sub", [one, positive], "calibration_negative"), positive], probabilities, axis=1)
    node("ArgMax", [probabilities], label, axis=1, keepdims=0)


def _fit_sigmoid(scores: np.ndarray, labels: np.ndarray) -> Curve | None:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=np.inf, max_iter=1000).fit(_log_odds(scores.astype(np.float32)).reshape(-1, 1), labels)
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return {"slope": slope, "intercept": intercept} if slope > 0 else None


def _fit_isotonic(scores: np.ndarray, labels: np.ndarray) -> Curve | None:
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(scores, kind="stable")
    # Rows of one score are one point, so that they get one probability.
    points, counts = np.unique(scores[order].astype(np.float32), return_counts=True)
    shares = np.add.reduceat(labels[order].astype(np.float64), np.cumsum(counts) - counts) / counts
    pooled = isotonic_regression(shares, sample_weight=counts.astype(np.float64))
    heights, pool = np.unique(pooled, return_inverse=True)
    rows = np.bincount(pool, weights=counts)
    centres = (np.bincount(pool, weights=points.astype(np.float64) * counts) / rows).astype(np.float32)
    knots, first = np.unique(centres, return_index=True)
    if len(knots) < 2:
        return None
    # No probability of exactly 0 or 1: one error there would cost an infinite log loss.
    least = 1 / (len(labels) + 2)
    chosen = np.unique(np.linspace(0, len(knots) - 1, _MOST_KNOTS).astype(int))
    return {"scores": knots[chosen], "probabilities": np.clip(heights[first], least, 1 - least).astype(np.float32)[chosen]}


def _segments(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Knots, heights at them, and the slope of each segment between two knots."""
    knots, heights = curve["scores"], curve["probabilities"]
    return knots, heights, (np.diff(heights) / np.diff(knots)).astype(np.float32)


def _log_odds(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(scores, _MARGIN, np.float32(1) - _MARGIN)
    return np.log(clipped / (np.float32(1) - clipped))
