"""The form in which a pipeline serves."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.core.project import current_project
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
from mlops_assets.ml.pipeline_steps import PipelineStep
from mlops_assets.schema.solution import Serving, Solution
from mlops_assets.training.export import export_model

SCHEMA = FeatureSchema(numeric=("a",), categorical=("kind",))


def exported(estimator: str, engine: str | None = None, **encoder: object):
    import yaml

    file = current_project().root / "mlops_assets" / "defs" / "flight_delay" / "defs.yaml"
    solution = Solution.model_validate(yaml.safe_load(file.read_text())["attributes"])
    solution = solution.model_copy(update={"serving": Serving(engine=engine)})
    frame = pd.DataFrame({"a": np.arange(60, dtype=np.float32), "kind": np.resize(["x", "y", "z"], 60).astype(object)})
    categorical = [PipelineStep("sklearn.preprocessing.OneHotEncoder", {"sparse_output": False, **encoder})]
    pipeline = build_pipeline(
        problem=solution.problem,
        schema=SCHEMA,
        estimator=PipelineStep(estimator, {}),
        numeric=None,
        categorical=categorical,
        seed=0,
    )
    return export_model(fit_pipeline(pipeline, frame, (frame["a"] > 30).to_numpy().astype(np.int64)), SCHEMA, solution)


LINEAR, WITHOUT_CONVERTER = "sklearn.linear_model.LogisticRegression", "sklearn.semi_supervised.LabelPropagation"


def test_onnx_is_preferred() -> None:
    form = exported(LINEAR, handle_unknown="ignore")
    assert (form.no_onnx, form.trusted_types, form.model) == (None, (), form.content)


@pytest.mark.parametrize(
    ("estimator", "encoder"),
    [(WITHOUT_CONVERTER, {"handle_unknown": "ignore"}), (LINEAR, {"handle_unknown": "infrequent_if_exist", "min_frequency": 25})],
)
def test_what_onnx_cannot_express_is_a_skops_file_with_the_reason(estimator: str, encoder: dict[str, object]) -> None:
    form = exported(estimator, **encoder)
    assert form.no_onnx
    assert "cannot be exported to ONNX" in form.no_onnx


def test_the_engine_process_needs_onnx() -> None:
    with pytest.raises(ValueError, match=r"LabelPropagation cannot be exported to ONNX: .* leave out `serving.engine: process`"):
        exported(WITHOUT_CONVERTER, engine="process", handle_unknown="ignore")


def test_a_pipeline_that_fails_for_a_new_category_cannot_serve_in_any_form() -> None:
    with pytest.raises(ValueError, match="unknown categories"):
        exported(LINEAR, handle_unknown="error")
