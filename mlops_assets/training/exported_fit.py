"""A model fitted on rows, in the form in which it serves, with the precision of that form."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlops_assets.clients.bundle_record import Precision
from mlops_assets.engine.engine import Engine, ProcessEngine
from mlops_assets.stages.inputs import SolutionInputs, StageConduct
from mlops_assets.training.export import ExportedModel, export_model
from mlops_assets.training.fitting import FittedModel, fit_model

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.pipeline_steps import PipelineStep

_PARITY_ROWS = 20_000


@dataclass(frozen=True)
class ExportedFit:
    """A model fitted on `rows`, the schema of its features, its serving form, and how exactly that predicts."""

    rows: "pa.Table"
    schema: "FeatureSchema"
    fitted: FittedModel
    exported: ExportedModel
    precision: Precision


def feature_schema(inputs: SolutionInputs, rows: "pa.Table") -> "FeatureSchema":
    """The schema of the features of a model that is fitted on `rows`. Raises ValueError when they cannot be read as a model reads them."""
    from mlops_assets.ml.matrix import FeatureSchema, with_origins

    return with_origins(FeatureSchema.from_arrow(rows.schema, inputs.features), rows)


def fit_and_export(inputs: SolutionInputs, rows: "pa.Table", holdout: "pa.Table", estimator: "PipelineStep") -> ExportedFit:
    """Fit `estimator` on `rows`, on each history of the solution, export the average, and compare the export with it on the `holdout`.

    Raises ValueError when that is not possible.
    """
    from mlops_assets.ml.matrix import to_exact_frame, to_frame
    from mlops_assets.ml.onnx import measure_parity, measure_rounding

    solution, schema = inputs.solution, feature_schema(inputs, rows)
    fitted = fit_model(inputs, schema, rows, estimator)
    exported = export_model(fitted.pipeline, schema, solution)
    compared_rows = holdout.slice(0, _PARITY_ROWS)
    compared = measure_parity(fitted.pipeline, exported.model, to_frame(compared_rows, schema), schema, solution.problem)
    limit = solution.gates.maximum_onnx_difference
    exact = to_exact_frame(compared_rows, schema)
    rounded = measure_rounding(fitted.pipeline, exported.model, exact, schema, solution.problem, limit)
    precision = Precision(
        rows=compared.rows,
        # Relative where predictions are large, so that one limit suits probabilities and values.
        largest_difference=compared.largest_relative_difference,
        float32_changed=rounded.changed_share,
        float32_mean_change=rounded.mean_change,
    )
    return ExportedFit(rows, schema, fitted, exported, precision)


def fit_version(
    inputs: SolutionInputs, train: "pa.Table", holdout: "pa.Table", estimator: "PipelineStep", *, engine: Engine
) -> tuple[ExportedFit, ExportedFit]:
    """The fit of a version that its gates evaluate, and the one that serves: one that has seen the `holdout` too, or the same without `refit`.

    Both are parts for `engine`. A single one stays in this process, unless it is of a segment, whose runs go side by side. Raises ValueError
    as `fit_and_export` does.
    """
    import pyarrow as pa

    parts = [train, pa.concat_tables([train, holdout])] if inputs.solution.refits else [train]
    if len(parts) == 1 and inputs.segment is None:
        engine = ProcessEngine()
    # What Dagster is to do about an asset is nothing to a fit, and cannot be sent.
    fit = _Fit(replace(inputs, conduct=StageConduct()), holdout.slice(0, _PARITY_ROWS), estimator)
    results = engine.map(fit, parts, in_flight=len(parts))
    fits = [replace(result, rows=rows) for result, rows in zip(results, parts, strict=True)]
    return fits[0], fits[-1]


@dataclass(frozen=True)
class _Fit:
    """The work of one part: a fit on its rows, which stay where they came from."""

    inputs: SolutionInputs
    holdout: "pa.Table"
    estimator: "PipelineStep"

    def __call__(self, rows: "pa.Table") -> ExportedFit:
        return replace(fit_and_export(self.inputs, rows, self.holdout, self.estimator), rows=rows.schema.empty_table())


def least_precise(first: Precision, second: Precision) -> Precision:
    """The larger of each difference of two models, both measured on the same rows."""
    return Precision(
        rows=first.rows,
        largest_difference=max(first.largest_difference, second.largest_difference),
        float32_changed=max(first.float32_changed, second.float32_changed),
        float32_mean_change=max(first.float32_mean_change, second.float32_mean_change),
    )
