"""The form in which a fitted pipeline serves: ONNX, or, where ONNX cannot express it, the pipeline itself as a skops file."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlops_assets.clients.trusted_types import trusted_types
from mlops_assets.schema.solution import Solution

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.skops_model import SkopsModel


@dataclass(frozen=True)
class ExportedModel:
    """The content of the file that serves, and what answers as it will. `no_onnx` is the reason for a skops file, None for ONNX."""

    content: bytes
    model: "bytes | SkopsModel"
    no_onnx: str | None
    trusted_types: tuple[str, ...]


def export_model(pipeline: "Pipeline", schema: "FeatureSchema", solution: Solution) -> ExportedModel:
    """The fitted `pipeline` as it will serve. Raises ValueError when it cannot: the message names the class and the remedy."""
    from mlops_assets.ml.onnx import NoOnnxFormError, to_onnx, unseen_row
    from mlops_assets.ml.pipeline import predict
    from mlops_assets.ml.skops_model import dump_pipeline, load_skops

    try:
        content = to_onnx(pipeline, schema, solution.problem)
    except NoOnnxFormError as error:
        if solution.serving.engine == "process":
            raise ValueError(f"{error} Or leave out `serving.engine: process`: workers serve it without ONNX.") from error
        predict(pipeline, unseen_row(schema), solution.problem)
        content, trusted = dump_pipeline(pipeline), tuple(trusted_types(pipeline))
        return ExportedModel(content, load_skops(content, trusted, schema, solution.problem), str(error), trusted)
    return ExportedModel(content, content, None, ())
