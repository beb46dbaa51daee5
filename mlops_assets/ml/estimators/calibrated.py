"""A fitted binary classifier whose probabilities are bent by a calibration curve."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from mlops_assets.ml.calibration import Curve, apply_curve


class CalibratedClassifier(ClassifierMixin, BaseEstimator):
    """`estimator`, fitted already, with the calibration curve `curve` (`calibration.fit_curve`) behind it.

    Fitting it again fits the estimator and keeps the curve.
    """

    def __init__(self, estimator: Any, curve: Curve):
        self.estimator = estimator
        self.curve = curve

    def __sklearn_is_fitted__(self) -> bool:
        """Whether predictions can be made."""
        return hasattr(self.estimator, "classes_")

    @property
    def classes_(self) -> np.ndarray:
        """The two classes."""
        return self.estimator.classes_

    def fit(self, x: Any, y: Any, **parameters: Any) -> "CalibratedClassifier":
        """Fit the estimator."""
        self.estimator.fit(x, y, **parameters)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        """Calibrated probabilities [rows, 2], float32."""
        positive = apply_curve(self.curve, self.estimator.predict_proba(x)[:, 1])
        return np.column_stack([np.float32(1) - positive, positive])

    def predict(self, x: Any) -> np.ndarray:
        """The more probable class."""
        return self.classes_[self.predict_proba(x).argmax(axis=1)]
