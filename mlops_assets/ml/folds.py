"""Folds in time inside the training rows, for a search, a calibration and a chosen threshold. The hold-out is not here."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Fold:
    """Positions of the rows to fit on and of the rows to predict."""

    train: np.ndarray
    validation: np.ndarray


def time_folds(prediction_times: np.ndarray, label_times: np.ndarray, *, folds: int, seed: int) -> tuple[Fold, ...]:
    """Expanding folds: the second half of the rows in `folds` parts by time, each predicted from the rows before it.

    A row is fitted on when it was predicted *and* its label was known before the part begins, as on a real training date.
    Rows that all have one prediction time have no order: they are dealt out by `seed`, each part predicted from the others.
    Both arrays are datetime64 of equal length. Raises ValueError when there are too few moments, or nothing to fit on.
    """
    moments = np.unique(prediction_times)
    if len(moments) == 1:
        return _dealt(len(prediction_times), folds, seed)
    ordered = np.sort(prediction_times)
    half = len(ordered) // 2
    starts = [ordered[half + (len(ordered) - half) * part // folds] for part in range(folds)]
    if len(set(starts)) < folds or starts[0] == ordered[0]:
        raise ValueError(
            f"The training rows have {len(moments)} moments of prediction, too few for {folds} folds in time: "
            "lower training.folds or widen training.window."
        )
    splits = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        known = (prediction_times < start) & (label_times < start)
        within = prediction_times >= start
        if end is not None:
            within &= prediction_times < end
        if not known.any():
            raise ValueError(
                f"No label was known before the fold that begins at {start}: lower training.folds or widen the window."
            )
        splits.append(Fold(train=np.flatnonzero(known), validation=np.flatnonzero(within)))
    return tuple(splits)


def _dealt(rows: int, folds: int, seed: int) -> tuple[Fold, ...]:
    if rows < folds:
        raise ValueError(f"{rows} training rows cannot make {folds} folds.")
    parts = np.random.default_rng(seed).permutation(rows) % folds
    return tuple(Fold(train=np.flatnonzero(parts != part), validation=np.flatnonzero(parts == part)) for part in range(folds))
