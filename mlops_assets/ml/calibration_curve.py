"""The calibration curve of binary predictions, in bins of equal frequency.

Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015), with bins of equal frequency as
in Nguyen and O'Connor, "Posterior calibration and exploratory analysis for natural language processing models" (EMNLP 2015).
"""

from dataclasses import dataclass

import numpy as np

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CalibrationPoint:
    """One bin of a calibration curve: mean probability, share of positives, rows."""

    mean_probability: float
    positive_share: float
    rows: int


def calibration_curve(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> tuple[CalibrationPoint, ...]:
    """The calibration curve of binary `labels` in at most `bins` bins of equal frequency; equal probabilities share a bin."""
    positions = calibration_bins(probabilities, bins)
    rows = np.bincount(positions)
    scores = np.bincount(positions, weights=probabilities)
    positives = np.bincount(positions, weights=labels)
    return tuple(
        CalibrationPoint(mean_probability=float(score / count), positive_share=float(positive / count), rows=int(count))
        for score, positive, count in zip(scores, positives, rows, strict=True)
        if count
    )


def calibration_bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each row, from 0: at most `bins` bins of equal frequency; equal probabilities share a bin."""
    edges = np.unique(np.quantile(probabilities, np.linspace(0, 1, bins + 1)))
    return np.searchsorted(edges[1:-1], probabilities, side="left")
