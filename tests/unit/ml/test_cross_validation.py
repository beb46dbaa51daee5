import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlops_assets.ml.cross_validation import ModelSpecification, ScoredFolds, TrainingRows, check_weights, fit_rows, out_of_fold
from mlops_assets.ml.folds import Fold
from mlops_assets.ml.pipeline import predict
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.schema.problem import PROBLEMS

ESTIMATORS = {
    "binary_classification": ("sklearn.ensemble.HistGradientBoostingClassifier", "roc_auc"),
    "multiclass_classification": ("sklearn.ensemble.HistGradientBoostingClassifier", "log_loss"),
    "regression": ("sklearn.ensemble.HistGradientBoostingRegressor", "mean_absolute_error"),
}
FOLDS = (Fold(np.arange(0, 1500), np.arange(1500, 2000)), Fold(np.arange(0, 2000), np.arange(2000, 2500)))


def specification(sample, problem) -> ModelSpecification:
    return ModelSpecification(problem=problem, schema=sample.schema, numeric=None, categorical=None, seed=0)


def rows(sample, problem, *, weights=None, balanced=False) -> TrainingRows:
    return TrainingRows(frame=sample.frame, labels=sample.labels[problem], weights=weights, balanced=balanced)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_fold_is_scored_by_a_model_of_its_own_rows_alone(problem, sample) -> None:
    path, metric = ESTIMATORS[problem]
    estimator = PipelineStep(path, {"max_iter": 5})
    data = rows(sample, problem)

    def fold_scores(scored: TrainingRows) -> list[float]:
        folds = ScoredFolds(specification(sample, problem), scored, FOLDS, metric, threshold=0.5)
        return [folds.score((estimator, number)) for number in range(len(FOLDS))]

    scores = fold_scores(data)
    assert len(scores) == 2
    # Rows outside both parts of a fold, such as those after it, do not matter.
    spoilt = data.labels.copy()
    spoilt[2500:] = spoilt[2500:][::-1]
    again = TrainingRows(frame=data.frame, labels=spoilt, weights=None, balanced=False)
    assert scores == fold_scores(again)


def test_predictions_out_of_fold_are_those_of_the_folds(sample) -> None:
    chosen = specification(sample, "binary_classification")
    estimator = PipelineStep(ESTIMATORS["binary_classification"][0], {"max_iter": 5})
    data = rows(sample, "binary_classification")
    labels, predictions = out_of_fold(chosen, estimator, data, FOLDS)
    expected = predict(
        fit_rows(chosen, estimator, data.take(FOLDS[1].train)), sample.frame.iloc[2000:2500], "binary_classification"
    )
    np.testing.assert_array_equal(predictions[500:], expected)
    np.testing.assert_array_equal(labels, data.labels[1500:2500])
    assert roc_auc_score(labels, predictions[:, 1]) > 0.7


def test_a_row_of_weight_two_counts_twice(sample) -> None:
    chosen = specification(sample, "binary_classification")
    estimator = PipelineStep("sklearn.linear_model.LogisticRegression", {})
    plain = rows(sample, "binary_classification")
    weights = np.where(np.arange(len(plain.labels)) < 1000, 2.0, 1.0)
    twice = plain.take(np.concatenate([np.arange(1000), np.arange(len(plain.labels))]))
    # Imputing and encoding know no weights: without them the models differ a little.
    numbers = ModelSpecification(
        problem="binary_classification",
        schema=type(sample.schema)(numeric=("continuous", "count"), categorical=()),
        numeric=[],
        categorical=[],
        seed=0,
    )
    frame = sample.frame[["continuous", "count"]]
    weighted = fit_rows(numbers, estimator, TrainingRows(frame, plain.labels, weights, balanced=False))
    repeated = fit_rows(numbers, estimator, TrainingRows(frame.iloc[list(twice.frame.index)], twice.labels, None, balanced=False))
    np.testing.assert_allclose(weighted.predict_proba(frame), repeated.predict_proba(frame), atol=1e-4)
    assert chosen.build(estimator) is not None


def test_balanced_classes_weigh_the_same(sample) -> None:
    data = rows(sample, "binary_classification", balanced=True)
    weights = data.fit_weights()
    assert weights is not None
    assert weights[data.labels == 1].sum() == pytest.approx(weights[data.labels == 0].sum())
    assert weights.mean() == pytest.approx(1)
    estimator = PipelineStep("sklearn.linear_model.LogisticRegression", {})
    chosen = specification(sample, "binary_classification")
    balanced = fit_rows(chosen, estimator, data).predict_proba(sample.frame)[:, 1].mean()
    plain = fit_rows(chosen, estimator, rows(sample, "binary_classification")).predict_proba(sample.frame)[:, 1].mean()
    assert plain == pytest.approx(0.2, abs=0.01)
    assert balanced > 0.3


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_cannot_be_are_an_error(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="Weights are numbers, 0 or more"):
        check_weights(np.array(weights))


def test_a_fold_without_a_class_is_an_error(sample) -> None:
    data = rows(sample, "multiclass_classification")
    order = np.argsort(data.labels == "high", kind="stable")
    with pytest.raises(ValueError, match="fold 1 lack the class high"):
        out_of_fold(
            specification(sample, "multiclass_classification"),
            PipelineStep(ESTIMATORS["multiclass_classification"][0], {"max_iter": 2}),
            data.take(order),
            FOLDS,
        )


def test_a_feature_without_any_value_is_named(sample) -> None:
    data = rows(sample, "binary_classification")
    empty = TrainingRows(data.frame.assign(gaps=np.float32("nan")), data.labels, weights=None, balanced=False)
    chosen = specification(sample, "binary_classification")
    with pytest.raises(ValueError, match="in which gaps has no value"):
        fit_rows(chosen, PipelineStep(ESTIMATORS["binary_classification"][0], {"max_iter": 2}), empty)
    # What imputes takes it.
    fit_rows(chosen, PipelineStep("sklearn.linear_model.LogisticRegression", {}), empty)
