"""The columns of a prediction and its output as numbers, for all stages that score rows."""

from typing import TYPE_CHECKING

from mlops_assets.schema.column_names import (
    CHANNEL,
    COUNTED,
    FEATURE_VIEWS,
    GENERATION,
    MODEL_VERSION,
    OUTPUTS,
    PREDICTION_ID,
    ROLE,
    SCORED_BECAUSE,
    SCORED_BY,
    SERVED_AT,
    SOURCE_SNAPSHOT,
    TRAINED_ON,
    VIEW_FLAGS,
    VIEW_SNAPSHOTS,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BATCH = "batch"
"""The channel of the rows that the asset `predictions` writes; the others come from the servers."""

CHAMPION_ROLE, CHALLENGER_ROLE = "champion", "challenger"

PREDICTION_DESCRIPTIONS = {
    PREDICTION_ID: "Batch: solution, key, model version, and the generation after the first. From a server: solution, channel and request.",
    CHANNEL: "How the prediction was asked for: batch, online or stream.",
    ROLE: "Whether the model was the champion or a challenger.",
    MODEL_VERSION: "Version of the model that scored the row.",
    FEATURE_VIEWS: "Name and version of every feature view behind the prediction, as a JSON object.",
    VIEW_FLAGS: "Per feature view whether its values are ok, missing or stale, or came with the request, as a JSON object.",
    SOURCE_SNAPSHOT: "Batch: snapshot of the lake that the features were read from when these rows were written.",
    VIEW_SNAPSHOTS: "From a server: snapshot of the lake that the online values of each view reflect, as a JSON object.",
    SERVED_AT: "From a server: when it answered.",
    GENERATION: "Batch: 1 for the first prediction of the row, and one more for each later one with another result.",
    COUNTED: "Batch: whether outcomes, reports and decisions see it; of the generations of a row one at most.",
    TRAINED_ON: "Batch: whether the version was trained on the row; such a prediction never counts.",
    SCORED_BY: "Batch: who had the row scored. Online: the caller that asked, where it has a token of its own.",
    SCORED_BECAUSE: "Batch: the reason that was given.",
    "score": "Probability of the positive class, or of the predicted class.",
    "predicted_label": "The class predicted at the contract's threshold.",
    "value": "The predicted value.",
    "probabilities": "Probability of each class, in the contract's order.",
}
"""Descriptions of the columns that scoring adds."""


def prediction_columns(scored: "pa.Table") -> list[str]:
    """Columns of `Bundle.score` that tables keep."""
    return [name for name in scored.column_names if name in OUTPUTS]


def predictions_array(scored: "pa.Table") -> "np.ndarray":
    """The output of `Bundle.score` as `ml.evaluation` takes it: [rows] of a binary problem or a regression, else [rows, classes]."""
    import numpy as np

    if "probabilities" in scored.column_names:
        column = scored.column("probabilities").combine_chunks()
        return np.asarray(column.flatten()).reshape(len(column), -1)
    return scored.column("value" if "value" in scored.column_names else "score").to_numpy()
