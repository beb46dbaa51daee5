"""Recalibrated models: the model of another version, its answers recalibrated (`ml/recalibration_methods.py`).

The one place where answers are recalibrated. A bundle is loaded with such a model, in whichever process that is, and all that reads
answers comes after it: labels, the sample, the batch, the servers. Fitting belongs to training.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlops_assets.ml.recalibration_methods import Recalibration
from mlops_assets.schema.problem import Problem
from mlops_assets.serving.bundle import Bundle, PredictingModel, file_hash
from mlops_assets.serving.contract import BaseVersion, Contract
from mlops_assets.serving.sample import Sample, SampleRow

_DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class RecalibratedModel:
    """A model whose answers are recalibrated: in float64, and rounded to float32 once."""

    model: PredictingModel
    problem: Problem
    recalibration: Recalibration

    def predict(self, numeric: np.ndarray, categorical: np.ndarray) -> np.ndarray:
        """Return the recalibrated answers; see `PredictingModel`."""
        answers = self.model.predict(numeric, categorical)
        # An answer that is no number stays none, and one beyond float32 becomes infinite: both are refused like those of any model.
        with np.errstate(over="ignore", invalid="ignore"):
            return recalibrate_answers(self.recalibration, self.problem, answers).astype(np.float32)


def apply_contract(model: PredictingModel, contract: Contract) -> PredictingModel:
    """Return `model`, recalibrated when `contract` has a recalibration."""
    if contract.recalibration is None:
        return model
    return RecalibratedModel(model, contract.problem, contract.recalibration.recalibration)


def recalibrate_answers(recalibration: Recalibration, problem: Problem, answers: np.ndarray) -> np.ndarray:
    """Return the recalibrated `answers` of a model, float64 [rows, classes] or [rows, 1]."""
    if problem != "binary_classification":
        return recalibration.apply(answers)
    positive = recalibration.apply(answers[:, 1])
    return np.column_stack([1 - positive, positive])


def recalibrate_bundle(bundle: Bundle, base: BaseVersion, **changes: Any) -> Bundle:
    """Return `bundle`, which has no recalibration, recalibrated by `base`. `changes` are further fields of its contract.

    Its file is the same, its sample has the recalibrated answers, and its threshold fits to them.
    """
    contract, recalibration = bundle.contract, base.recalibration
    assert contract.recalibration is None  # recalibrations are never stacked
    sample = _recalibrate_sample(bundle.sample, recalibration, contract.problem)
    fields = contract.model_dump() | {
        "recalibration": base.model_dump(),
        "decision_threshold": _recalibrate_threshold(contract.decision_threshold, recalibration),
        "sample_sha256": file_hash(sample.to_bytes()),
    }
    recalibrated = Contract.model_validate(fields | changes)
    return replace(bundle, contract=recalibrated, sample=sample, model=apply_contract(bundle.model, recalibrated))


def _recalibrate_threshold(threshold: float | None, recalibration: Recalibration) -> float | None:
    """Return the threshold of recalibrated scores: the float32 value that a score at `threshold` becomes; the default stays."""
    if threshold is None or threshold == _DEFAULT_THRESHOLD:
        return threshold
    [recalibrated] = recalibration.apply(np.array([np.float32(threshold)])).astype(np.float32)
    return float(recalibrated)


def _recalibrate_sample(sample: Sample, recalibration: Recalibration, problem: Problem) -> Sample:
    """Return the sample with recalibrated answers, which may differ by as much as answers that differ by the former maximum."""
    answers = np.array([row.answer for row in sample.rows], dtype=np.float64)
    recalibrated = recalibrate_answers(recalibration, problem, answers)
    rows = tuple(
        SampleRow(request=row.request, features=row.features, answer=tuple(answer))
        for row, answer in zip(sample.rows, recalibrated.tolist(), strict=True)
    )
    result = Sample(maximum_difference=sample.maximum_difference, rows=rows)
    allowed = sample.maximum_difference * np.maximum(1.0, np.abs(answers))

    def move(column: np.ndarray) -> float:
        shifted = (recalibrate_answers(recalibration, problem, answers + sign * allowed * column) for sign in (-1, 1))
        return max(map(result.difference, shifted))

    moved = sum(map(move, np.eye(answers.shape[1])))
    return result.model_copy(update={"maximum_difference": max(sample.maximum_difference, moved)})
