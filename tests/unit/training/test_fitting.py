"""The training section as it acts on rows: search, final fit, calibration, threshold. Small real data, no stack."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from optuna.storages import InMemoryStorage

from mlops_assets.engine.engine import ProcessEngine
from mlops_assets.feature_store.registry import DbtModel
from mlops_assets.ml.estimators.calibrated import CalibratedClassifier
from mlops_assets.ml.matrix import FeatureSchema, to_frame
from mlops_assets.ml.onnx import to_onnx
from mlops_assets.ml.pipeline import predict
from mlops_assets.ml.search import SearchResult
from mlops_assets.schema.metric_names import greater_is_better
from mlops_assets.schema.problem import PROBLEMS
from mlops_assets.schema.solution import Serving, Solution
from mlops_assets.schema.training_rules import override_training
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.fitting import FittedModel, default_estimator, fit_model, run_search

ROWS = 2000
SCHEMA = FeatureSchema(numeric=("size", "noise"), categorical=("color",))
METRICS = {"binary_classification": "roc_auc", "multiclass_classification": "log_loss", "regression": "mean_absolute_error"}


def rows() -> pa.Table:
    """Rows over 100 days, labels half a day later."""
    random = np.random.default_rng(0)
    size = random.normal(size=ROWS).astype(np.float32)
    color = random.choice(["red", "green", "blue"], ROWS)
    value = size + (color == "red") + random.normal(size=ROWS)
    predicted = np.datetime64("2013-01-01", "us") + np.arange(ROWS) * np.timedelta64(72, "m")
    return pa.table(
        {
            "size": size,
            "noise": random.normal(size=ROWS).astype(np.float32),
            "color": color,
            "binary_classification": (value > 1.5).astype(np.int64),
            "multiclass_classification": np.array(["low", "middle", "high"])[np.digitize(value, [0, 1.5])],
            "regression": value,
            "weight": np.where(np.arange(ROWS) % 2, 1.0, 3.0),
            "predicted_at": pa.array(predicted, pa.timestamp("us", tz="UTC")),
            "known_at": pa.array(predicted + np.timedelta64(12, "h"), pa.timestamp("us", tz="UTC")),
        }
    )


def inputs(problem: str, **training: Any) -> SolutionInputs:
    """A solution with a linear default and a boosting candidate."""
    boosting = "HistGradientBoostingRegressor" if problem == "regression" else "HistGradientBoostingClassifier"
    linear = "sklearn.linear_model.Ridge" if problem == "regression" else "sklearn.linear_model.LogisticRegression"
    strength = "alpha" if problem == "regression" else "C"
    space = {"learning_rate": {"low": 0.05, "high": 0.3, "log": True}, "max_leaf_nodes": {"low": 2, "high": 8}}
    solution = Solution.model_validate(
        {
            "name": "small",
            "description": "Small.",
            "owners": ["team:a"],
            "problem": problem,
            "partitions": {"column": "day", "start": "2013-01-01"},
            "spine": {
                "model": "small_spine",
                "key": "id",
                "prediction_time": "predicted_at",
                "label": problem,
                "label_time": "known_at",
            },
            "features": [{"request": ["size", "noise", "color"]}],
            "training": {
                "window": "100d",
                "holdout": "10d",
                "metric": METRICS[problem],
                "folds": 2,
                "estimator": {"type": linear, "parameters": {strength: 1e-4 if strength == "C" else 1e4}},
                "search": {
                    "trials": 5,
                    "candidates": [
                        {"type": f"sklearn.ensemble.{boosting}", "parameters": {"max_iter": 10}, "space": space},
                        {"type": linear, "space": {strength: {"low": 0.01, "high": 10.0, "log": True}}},
                    ],
                },
                **training,
            },
        }
    )
    spine = DbtModel("small_spine", "small.spine", "", {}, {}, None)
    return SolutionInputs(solution=solution, spine=spine, views=(), request=SCHEMA.names, derived={})


def found(chosen: SolutionInputs, train: pa.Table) -> SearchResult:
    return run_search(
        chosen,
        SCHEMA,
        train,
        storage=nullcontext(InMemoryStorage()),
        name="study",
        report=lambda trial, best: None,
        engine=ProcessEngine(),
    )


def fitted(chosen: SolutionInputs, train: pa.Table) -> FittedModel:
    return fit_model(chosen, SCHEMA, train, default_estimator(chosen))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_search_beats_a_poor_default_and_the_same_seed_gives_the_same_model(problem: str) -> None:
    chosen, train = inputs(problem), rows()
    result = found(chosen, train)
    assert len(result.trials) == 5
    values = [result.default.value, result.best.value]
    assert values == sorted(values, reverse=not greater_is_better(METRICS[problem]))
    assert result.best.ordinal > 0
    again = found(chosen, train)
    assert again.best.step == result.best.step
    first, second = (
        to_onnx(fit_model(chosen, SCHEMA, train, each.best.step).pipeline, SCHEMA, chosen.solution.problem)
        for each in (result, again)
    )
    assert first == second


def test_the_search_says_which_candidate_has_a_wrong_parameter() -> None:
    chosen = inputs("binary_classification")
    broken = chosen.solution.model_copy(deep=True)
    assert broken.training.search is not None
    broken.training.search.candidates[0].parameters["max_itr"] = 3
    with pytest.raises(ValueError, match=r"has no parameter 'max_itr'\. Did you mean max_iter"):
        found(replace(chosen, solution=broken), rows())


def test_a_candidate_that_cannot_serve_ends_the_search_before_it_begins() -> None:
    search = {"trials": 3, "candidates": [{"type": "sklearn.semi_supervised.LabelPropagation"}]}
    chosen = inputs("binary_classification", search=search)
    solution = chosen.solution.model_copy(update={"serving": Serving(engine="process")})
    message = r"sklearn.semi_supervised.LabelPropagation cannot be exported to ONNX: .* leave out `serving.engine: process`"
    with pytest.raises(ValueError, match=message):
        found(replace(chosen, solution=solution), rows())


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_balanced_classes_overstate_and_calibration_mends_it(method: str) -> None:
    train = rows()
    estimator = {"type": "sklearn.linear_model.LogisticRegression"}
    rate = train.column("binary_classification").to_numpy().mean()

    def mean_score(**training: Any) -> float:
        model = fitted(inputs("binary_classification", estimator=estimator, **training), train)
        return float(predict(model.pipeline, to_frame(train, SCHEMA), "binary_classification")[:, 1].mean())

    assert mean_score() == pytest.approx(rate, abs=0.01)
    assert mean_score(class_weight="balanced") > rate + 0.1
    assert mean_score(class_weight="balanced", calibration=method) == pytest.approx(rate, abs=0.03)


def coefficients(average: Any) -> np.ndarray:
    """The coefficients of the linear models of an average, one row each."""
    return np.array([np.ravel(member.coef_) for member in average.estimators_])


def test_a_calibrated_model_keeps_the_estimator_that_saw_all_rows() -> None:
    train = rows()
    plain = fitted(inputs("binary_classification"), train).pipeline
    calibrated = fitted(inputs("binary_classification", calibration="sigmoid"), train).pipeline
    last = calibrated.named_steps["estimator"]
    assert isinstance(last, CalibratedClassifier)
    np.testing.assert_array_equal(coefficients(last.estimator), coefficients(plain.named_steps["estimator"]))


def test_the_threshold_is_the_number_or_what_the_rule_chooses() -> None:
    train = rows()
    assert fitted(inputs("binary_classification"), train).threshold == 0.5
    assert fitted(inputs("binary_classification", decision_threshold=0.3), train).threshold == 0.3
    assert fitted(inputs("regression"), train).threshold is None
    cost = {"cost": {"false_positive": 1, "false_negative": 5}}
    estimator = {"type": "sklearn.linear_model.LogisticRegression"}
    chosen = fitted(inputs("binary_classification", estimator=estimator, decision_threshold=cost), train)
    # Probabilities that are nearly true: 1 / (1 + 5).
    assert chosen.threshold == pytest.approx(1 / 6, abs=0.07)
    assert chosen.threshold_objective is not None
    assert -1 < chosen.threshold_objective < 0


def test_weights_reach_the_estimator() -> None:
    train = rows()
    plain, weighted = (
        coefficients(fitted(inputs("regression", sample_weight=weight), train).pipeline.named_steps["estimator"])
        for weight in (None, "weight")
    )
    assert np.abs(plain - weighted).max(axis=-1).min() > 1e-4


def test_an_override_is_what_the_file_would_have_said() -> None:
    chosen = inputs("binary_classification")
    changed = override_training(chosen.solution, {"training.estimator.parameters.C": 0.5, "training.search.trials": 3})
    assert (
        changed
        == inputs(
            "binary_classification",
            estimator={"type": "sklearn.linear_model.LogisticRegression", "parameters": {"C": 0.5}},
            search=chosen.solution.training.search.model_dump() | {"trials": 3} if chosen.solution.training.search else None,
        ).solution
    )
