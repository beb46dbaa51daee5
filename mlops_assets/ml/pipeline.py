"""The scikit-learn pipeline of a solution: building, fitting and predicting.

A pipeline has two steps: `features` (a ColumnTransformer over the columns of `matrix.to_frame`, by position) and
`estimator`. Everything random is seeded. Reading data, splitting it and evaluating the result belong elsewhere.

Encoders were compared on half a year of relational data (tested on the month after, gradient boosting): OrdinalEncoder scored
ROC AUC 0.730 and TargetEncoder 0.727. Both export to ONNX exactly. TargetEncoder of several classes does not export, and
neither does OrdinalEncoder with `min_frequency` or `max_categories`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.ml.boosting_libraries import labels_for, library_of
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline_steps import TARGET_TYPES, PipelineStep, class_path, explained, shuffled_folds
from mlops_assets.ml.threads import limited_to, plan_fits
from mlops_assets.ml.weighted_binning import sort_once
from mlops_assets.schema.problem import Problem, check_problem

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

FEATURES_STEP = "features"
ESTIMATOR_STEP = "estimator"


def build_pipeline(
    *,
    problem: Problem,
    schema: FeatureSchema,
    estimator: PipelineStep,
    numeric: Sequence[PipelineStep] | None,
    categorical: Sequence[PipelineStep] | None,
    seed: int,
) -> "Pipeline":
    """The unfitted pipeline.

    `numeric` and `categorical` are chains of transformers for those columns; an empty chain passes the columns through and
    None takes `default_preprocessing`. Raises ValueError when the estimator does not suit `problem` or there is no feature.
    """
    from sklearn.base import is_classifier, is_regressor
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    check_problem(problem)
    if not schema.names:
        raise ValueError("A model needs at least one feature.")
    model = estimator.build(problem, seed)
    suits = is_regressor(model) if problem == "regression" else is_classifier(model)
    if not suits:
        kind = "regressor" if problem == "regression" else "classifier"
        raise ValueError(f"{estimator.class_path} is not a {kind}, which {problem} needs.")
    default_numeric, default_categorical = default_preprocessing(problem, model, seed)
    chains = {
        "numeric": (default_numeric if numeric is None else [step.build(problem, seed) for step in numeric], schema.numeric),
        "categorical": (
            default_categorical if categorical is None else [step.build(problem, seed) for step in categorical],
            schema.categorical,
        ),
    }
    transformers, position = [], 0
    for name, (chain, columns) in chains.items():
        positions = list(range(position, position + len(columns)))
        position += len(columns)
        if columns:
            transformers.append((name, _chain(chain), positions))
    features = ColumnTransformer(transformers, verbose_feature_names_out=False)
    return Pipeline([(FEATURES_STEP, features), (ESTIMATOR_STEP, model)])


def default_preprocessing(problem: Problem, model: Any, seed: int) -> tuple[list[Any], list[Any]]:
    """The numeric and the categorical transformers that suit `model` when the solution names none.

    Trees split on codes: categories become ordinal codes, unknown ones -1. Histogram gradient boosting, LightGBM and XGBoost read NaN,
    so their numbers pass through; the other trees get imputed numbers (they read NaN too, but their export to ONNX does not), and
    unscaled ones (scaling in float32 moves values across thresholds). Any other model gets imputed and scaled numbers, and
    categories encoded by the mean of the target (one-hot for several classes).
    """
    from sklearn.ensemble import BaseEnsemble, HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
    from sklearn.tree import BaseDecisionTree

    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    if isinstance(model, HistGradientBoostingClassifier | HistGradientBoostingRegressor) or library_of(model):
        return [], [codes]
    if isinstance(model, BaseEnsemble | BaseDecisionTree):
        return [imputer], [codes]
    scaled = [imputer, StandardScaler()]
    if problem == "multiclass_classification":
        return scaled, [OneHotEncoder(handle_unknown="ignore", sparse_output=False)]
    return scaled, [TargetEncoder(target_type=TARGET_TYPES[problem], cv=shuffled_folds(problem, 5, seed))]


def fit_pipeline(
    pipeline: "Pipeline",
    frame: "pd.DataFrame",
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    histories: Sequence[np.ndarray] = (),
) -> "Pipeline":
    """Fit `pipeline` on `frame` (from `matrix.to_frame`) and `labels` (from `problem.label_array`), and return it.

    `weights` of the rows, if any, go to the estimator; transformers do not read them. Several `histories`, the weights of all rows in each,
    make its estimator the average of one fit on each.

    The encodings that a TargetEncoder learned are rounded to float32, because ONNX stores them so: without it a value
    next to a threshold would take another branch.

    Raises TrainingError when it cannot be fitted, naming the class, and features without any value.
    """
    from sklearn.preprocessing import TargetEncoder

    if weights is not None or len(histories):
        sort_once()
    labels = labels_for(pipeline.named_steps[ESTIMATOR_STEP], labels)
    estimator = class_path(pipeline.named_steps[ESTIMATOR_STEP])
    with explained(*_fit_advice(estimator, frame)):
        if not _fit_average(pipeline, frame, labels, histories):
            with limited_to(*plan_fits([len(frame)]).threads):
                pipeline.fit(frame, labels, **({} if weights is None else {f"{ESTIMATOR_STEP}__sample_weight": weights}))
    for step in fitted_steps(pipeline):
        if isinstance(step, TargetEncoder):
            step.encodings_ = [np.float64(np.float32(encoding)) for encoding in step.encodings_]
            step.target_mean_ = np.float64(np.float32(step.target_mean_))
    return pipeline


def _fit_average(pipeline: "Pipeline", frame: "pd.DataFrame", labels: np.ndarray, histories: Sequence[np.ndarray]) -> bool:
    """Fit the transformers on all rows and the estimator on each history, in place. Return whether there is any that can be fitted."""
    from mlops_assets.ml.averaging import fit_average

    if not histories:
        return False
    features = pipeline.named_steps[FEATURES_STEP]
    average = fit_average(pipeline.named_steps[ESTIMATOR_STEP], features.fit_transform(frame, labels), labels, histories)
    if average is None:
        return False
    pipeline.steps[-1] = (ESTIMATOR_STEP, average)
    return True


def predict(pipeline: "Pipeline", frame: "pd.DataFrame", problem: Problem) -> np.ndarray:
    """Probabilities [rows, classes] of a classifier, or values [rows] of a regressor. Raises TrainingError, naming the class."""
    doing = f"{class_path(pipeline.named_steps[ESTIMATOR_STEP])} does not predict"
    with explained(doing, "Correct training.estimator or training.preprocessing, or name another class."):
        return pipeline.predict(frame) if problem == "regression" else pipeline.predict_proba(frame)


def fitted_steps(pipeline: "Pipeline") -> Iterator[Any]:
    """Every transformer and estimator inside a fitted `pipeline`, whatever the nesting; of an average those that it is of too."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import VotingClassifier, VotingRegressor
    from sklearn.pipeline import Pipeline

    for _, step in pipeline.steps:
        nested = [entry[1] for entry in step.transformers_] if isinstance(step, ColumnTransformer) else [step]
        for part in nested:
            if isinstance(part, Pipeline):
                yield from fitted_steps(part)
            elif not isinstance(part, str):
                yield part
            if isinstance(part, VotingClassifier | VotingRegressor):
                yield from part.estimators_


def _fit_advice(estimator: str, frame: "pd.DataFrame") -> tuple[str, str]:
    """Return the fault of a failed fit and the remedy. Histogram gradient boosting speaks of shapes where a feature has no value."""
    missing = frame.select_dtypes("number").isna().all()
    if missing.any():
        names = ", ".join(missing.index[missing])
        return (
            f"{estimator} cannot be fitted on {len(frame)} training rows in which {names} has no value",
            f"Leave {names} out of `features`, widen training.window or lower training.folds, or add an imputer to "
            "training.preprocessing.numeric.",
        )
    return (
        f"{estimator} cannot be fitted on {len(frame)} training rows",
        "Correct training.estimator, its parameters or training.preprocessing, or name another class.",
    )


def _chain(steps: Sequence[Any]) -> Any:
    from sklearn.pipeline import make_pipeline

    if not steps:
        return "passthrough"
    return steps[0] if len(steps) == 1 else make_pipeline(*steps)
