"""Average of estimators that were fitted on different histories of the same rows, in the form of a voting estimator of scikit-learn."""

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.ml.threads import limited_to, plan_fits

if TYPE_CHECKING:
    from sklearn.ensemble import VotingClassifier, VotingRegressor


def fit_average(estimator: Any, features: Any, labels: np.ndarray, histories: Sequence[np.ndarray]) -> Any:
    """Fit a copy of `estimator` for each of `histories`, the weights of all rows, 0 for those that it does not take, and average them.

    Histories without rows of every class are left out; None where none is left, and where one is, its fit alone.
    """
    from sklearn.base import is_classifier

    classes = np.unique(labels) if is_classifier(estimator) else None
    chosen = [
        (weights[taken], taken)
        for weights in histories
        if len(taken := np.flatnonzero(weights > 0)) and (classes is None or len(np.unique(labels[taken])) == len(classes))
    ]

    def fit(part: tuple[np.ndarray, np.ndarray], threads: int) -> Any:
        weights, taken = part
        weighted = {} if np.ptp(weights) == 0 else {"sample_weight": weights}
        with limited_to(threads):
            return copy.deepcopy(estimator).fit(features[taken], labels[taken], **weighted)

    plan = plan_fits([len(taken) for _, taken in chosen])
    if plan.side_by_side == 1:
        fitted = list(map(fit, chosen, plan.threads))
    else:
        pool = ThreadPoolExecutor(plan.side_by_side)
        try:
            fitted = list(pool.map(fit, chosen, plan.threads))
        finally:
            # A run that is canceled waits for no fit: its process ends with them.
            pool.shutdown(wait=False, cancel_futures=True)
    if len(fitted) < 2:
        return fitted[0] if fitted else None
    return average_of(fitted, classes)


def average_of(fitted: Sequence[Any], classes: np.ndarray | None) -> "VotingClassifier | VotingRegressor":
    """Return the average of fitted estimators: of their probabilities of `classes`, or of their values (None)."""
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils import Bunch

    named = [(f"history_{number}", member) for number, member in enumerate(fitted)]
    average = VotingRegressor(named) if classes is None else VotingClassifier(named, voting="soft", flatten_transform=False)
    average.estimators_ = list(fitted)
    average.named_estimators_ = Bunch(**dict(named))
    if classes is not None:
        average.le_ = LabelEncoder().fit(classes)
        average.classes_ = average.le_.classes_
    return average
