"""Labelled rows of a solution as a stream, and the models of it by history and day: for policies that are compared, and for probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.exported_fit import feature_schema
from mlops_assets.training.fitting import default_estimator, model_specification, training_rows

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.cross_validation import ModelSpecification, TrainingRows
    from mlops_assets.ml.pipeline_steps import PipelineStep
    from mlops_assets.ml.shared_fits import Models, Stream


@dataclass(frozen=True)
class SolutionLearner:
    """The estimator of a solution on rows that were converted once."""

    specification: "ModelSpecification"
    estimator: "PipelineStep"
    rows: "TrainingRows"
    classes: Sequence[int | str]

    def fit_predict(self, rows: "np.ndarray", weights: "np.ndarray | None", later: "np.ndarray") -> "np.ndarray":
        """Fit on `rows`, weighted by `weights` beside the weights of the solution, and return the predictions of `later`."""
        from dataclasses import replace

        import numpy as np

        from mlops_assets.ml.cross_validation import fit_rows
        from mlops_assets.ml.pipeline import predict

        taken = self.rows.take(rows)
        if weights is not None:
            taken = replace(taken, weights=weights if taken.weights is None else weights * taken.weights)
        problem = self.specification.problem
        predicted = predict(fit_rows(self.specification, self.estimator, taken), self.rows.frame.iloc[later], problem)
        if problem == "binary_classification":
            # A history of one class gives it alone.
            return predicted[:, 1] if predicted.shape[1] == 2 else np.full(len(later), float(taken.labels[0]))
        if problem == "regression":
            return predicted
        # A class that the history does not hold has no probability.
        aligned = np.zeros((len(later), len(self.classes)))
        aligned[:, np.searchsorted(np.asarray(self.classes), np.unique(taken.labels))] = predicted
        return aligned


def solution_models(inputs: SolutionInputs, table: "pa.Table", *, folder: Path | None, identity: str) -> "Models":
    """Return the models of the labelled rows of `table`, fitted with the estimator of the solution as it is."""
    import numpy as np

    from mlops_assets.ml.shared_fits import Models

    schema = feature_schema(inputs, table)
    rows = training_rows(inputs, schema, table)
    classes: tuple[int | str, ...] = () if inputs.solution.problem == "regression" else tuple(np.unique(rows.labels).tolist())
    return Models(
        _stream(inputs, table, rows.labels, classes),
        SolutionLearner(model_specification(inputs, schema), default_estimator(inputs), rows, classes),
        squared=inputs.solution.training.metric != "mean_absolute_error",
        folder=folder,
        identity=identity,
    )


def _stream(inputs: SolutionInputs, table: "pa.Table", labels: "np.ndarray", classes: Sequence[int | str]) -> "Stream":
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from mlops_assets.ml.shared_fits import Stream

    solution = inputs.solution

    def days(column: str) -> "np.ndarray":
        moments = table.column(column).cast(pa.timestamp("us", solution.partitions.time_zone))
        return pc.local_timestamp(moments).cast(pa.date32(), safe=False).to_numpy().astype("datetime64[D]")

    if solution.problem == "multiclass_classification":
        labels = np.searchsorted(np.asarray(classes), labels)
    # A training of a day uses the labels of the days before it.
    return Stream(
        problem=solution.problem,
        days=days(solution.spine.prediction_time),
        known=days(solution.spine.label_time) + 1,
        labels=labels,
        classes=classes,
    )
