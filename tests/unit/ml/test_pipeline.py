import numpy as np
import pytest

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline, fitted_steps, predict
from mlops_assets.ml.pipeline_steps import PipelineStep, import_class

BOOSTING = PipelineStep("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 5})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("sklearn.ensemble.HistGradientBoostingClasifier", "Did you mean HistGradientBoostingClassifier"),
        ("sklearn.ensembel.RandomForestClassifier", "Did you mean ensemble"),
        ("sklaern.ensemble.RandomForestClassifier", "Did you mean sklearn"),
        ("sklearn.metrics.roc_auc_score", "is not an estimator"),
        ("Ridge", "is not an import path"),
    ],
)
def test_a_class_that_cannot_be_used_gives_the_nearest_name(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_class(path)


def test_a_step_reads_class_and_parameters_only() -> None:
    assert PipelineStep.from_mapping({"class": "sklearn.linear_model.Ridge"}) == PipelineStep("sklearn.linear_model.Ridge", {})
    with pytest.raises(ValueError, match="fields class and parameters; got class, params"):
        PipelineStep.from_mapping({"class": "sklearn.linear_model.Ridge", "params": {}})


def test_an_unknown_parameter_gives_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"no parameter 'max_iters'\. Did you mean max_iter"):
        PipelineStep(BOOSTING.class_path, {"max_iters": 5}).build("binary_classification", 0)


def test_the_seed_reaches_what_is_random_and_yields_to_the_file() -> None:
    assert BOOSTING.build("binary_classification", 11).random_state == 11
    assert PipelineStep(BOOSTING.class_path, {"random_state": 3}).build("binary_classification", 11).random_state == 3


def test_target_encoding_is_told_the_kind_of_target() -> None:
    encoder = PipelineStep("sklearn.preprocessing.TargetEncoder", {})
    assert encoder.build("regression", 0).target_type == "continuous"
    assert encoder.build("binary_classification", 0).target_type == "binary"
    assert encoder.build("multiclass_classification", 0).target_type == "multiclass"


def test_an_estimator_must_suit_the_problem() -> None:
    schema = FeatureSchema(numeric=("a",), categorical=())
    with pytest.raises(ValueError, match="is not a regressor, which regression needs"):
        build_pipeline(problem="regression", schema=schema, estimator=BOOSTING, numeric=None, categorical=None, seed=0)
    with pytest.raises(ValueError, match="at least one feature"):
        build_pipeline(
            problem="binary_classification",
            schema=FeatureSchema((), ()),
            estimator=BOOSTING,
            numeric=None,
            categorical=None,
            seed=0,
        )


def test_the_same_seed_gives_the_same_model(sample) -> None:
    def predictions() -> np.ndarray:
        pipeline = build_pipeline(
            problem="binary_classification",
            schema=sample.schema,
            estimator=PipelineStep("sklearn.ensemble.RandomForestClassifier", {"n_estimators": 5}),
            numeric=None,
            categorical=[PipelineStep("sklearn.preprocessing.TargetEncoder", {"cv": 3})],
            seed=5,
        )
        fit_pipeline(pipeline, sample.frame, sample.labels["binary_classification"])
        return predict(pipeline, sample.frame, "binary_classification")

    np.testing.assert_array_equal(predictions(), predictions())


def test_chains_of_steps_are_applied_in_order(sample) -> None:
    pipeline = build_pipeline(
        problem="regression",
        schema=sample.schema,
        estimator=PipelineStep("sklearn.linear_model.Ridge", {}),
        numeric=[
            PipelineStep("sklearn.impute.SimpleImputer", {"strategy": "mean"}),
            PipelineStep("sklearn.preprocessing.StandardScaler", {}),
        ],
        categorical=[PipelineStep("sklearn.preprocessing.OneHotEncoder", {"handle_unknown": "ignore", "sparse_output": False})],
        seed=0,
    )
    fit_pipeline(pipeline, sample.frame, sample.labels["regression"])
    steps = [type(step).__name__ for step in fitted_steps(pipeline)]
    assert steps == ["SimpleImputer", "StandardScaler", "OneHotEncoder", "Ridge"]
    assert predict(pipeline, sample.frame, "regression").shape == (len(sample.frame),)
