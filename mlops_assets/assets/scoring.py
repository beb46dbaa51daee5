"""What stages that score rows share: the columns of a prediction and its numbers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

MODEL_VERSION = "model_version"
PREDICTION_ID = "prediction_id"
FEATURE_VIEWS = "feature_views"
SOURCE_SNAPSHOT = "_source_snapshot"

PREDICTION_DESCRIPTIONS = {
    PREDICTION_ID: "Solution, key and model version of the prediction.",
    MODEL_VERSION: "Version of the model that scored the row.",
    FEATURE_VIEWS: "Name and version of every feature view behind the prediction, as a JSON object.",
    SOURCE_SNAPSHOT: "Snapshot of the lake that the features were read from when these rows were written.",
    "score": "Probability of the positive class, or of the predicted class.",
    "predicted_label": "The class predicted at the contract's threshold.",
    "value": "The predicted value.",
    "probabilities": "Probability of each class, in the contract's order.",
}
"""Descriptions of the columns that scoring adds."""


def prediction_columns(scored: "pa.Table") -> list[str]:
    """Columns of `Bundle.score` that tables keep."""
    return [name for name in scored.column_names if name in ("score", "predicted_label", "value", "probabilities")]


def predictions_array(scored: "pa.Table") -> "np.ndarray":
    """The output of `Bundle.score` as `ml.evaluation` takes it: [rows] of a binary problem or a regression, else [rows, classes]."""
    import numpy as np

    if "probabilities" in scored.column_names:
        column = scored.column("probabilities").combine_chunks()
        return np.asarray(column.flatten()).reshape(len(column), -1)
    return scored.column("value" if "value" in scored.column_names else "score").to_numpy()
