"""Metadata of an asset that evaluates predictions: numbers to plot over time, slices, and figures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.core.prediction_columns import predictions_array

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.serving.contract import Contract
    from mlops_assets.training.candidate_evaluation import CandidateEvaluation


def result_metadata(result: "Evaluation") -> dict[str, Any]:
    """The metrics one by one, so that Dagster plots each over the materializations, and those of the naive baseline."""
    metadata: dict[str, Any] = {name: value for name, value in result.metrics.items() if value is not None}
    metadata["naive_baseline"] = dg.MetadataValue.json(
        {name: round(value, 6) for name, value in result.baseline.items() if value is not None}
    )
    return metadata


def draw_plots(
    result: "Evaluation", labels: "np.ndarray", scored: "pa.Table", classes: tuple[int | str, ...], *, metric: str
) -> dict[str, bytes]:
    """PNG images by name, those that suit the problem and the rows."""
    from mlops_assets.ml import evaluation_plots

    drawn: dict[str, bytes] = {}
    predictions = predictions_array(scored)
    if result.problem == "binary_classification" and 0 < labels.sum() < len(labels):
        drawn["ranking"] = evaluation_plots.ranking_plot(labels, predictions)
        drawn["calibration"] = evaluation_plots.calibration_plot(result)
        drawn["scores"] = evaluation_plots.score_plot(labels, predictions, 0.5 if result.threshold is None else result.threshold)
    if result.problem == "regression":
        drawn["residuals"] = evaluation_plots.residual_plot(labels, predictions)
    else:
        predicted = scored.column("predicted_label").to_numpy(zero_copy_only=False)
        drawn["confusion"] = evaluation_plots.confusion_plot(labels, predicted, classes)
    overall = result.metrics[metric]
    for column in dict.fromkeys(slice_result.column for slice_result in result.slices):
        chosen = [
            slice_result
            for slice_result in result.slices
            if slice_result.column == column and slice_result.metrics[metric] is not None
        ]
        if chosen and overall is not None:
            drawn[f"slices_{column}"] = evaluation_plots.slice_plot(chosen, metric, overall)
    return drawn


def draw_candidate_plots(evaluated: "CandidateEvaluation", contract: "Contract", *, metric: str) -> dict[str, bytes]:
    """The PNG images of a candidate by name: those of its predictions, and the importance of its features where it was measured."""
    from mlops_assets.ml.evaluation_plots import importance_plot

    result = evaluated.candidate_result.result
    plots = draw_plots(result, evaluated.labels, evaluated.scored, contract.classes, metric=metric)
    return plots if evaluated.importances is None else plots | {"importance": importance_plot(evaluated.importances)}


def plot_metadata(plots: Mapping[str, bytes]) -> dict[str, Any]:
    """Images for the asset's page."""
    from mlops_assets.ml.figures import markdown_image

    return {f"plot_{name}": dg.MetadataValue.md(markdown_image(name, png)) for name, png in plots.items()}
