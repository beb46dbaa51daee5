"""`evaluation`: the candidate's serving bundle judged on the temporal hold-out, with the gates a deployment needs."""

import tempfile
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb

from mlops_assets.assets.execution import RETRIES, partition_date, permanent_failure, table_schema, written_metadata
from mlops_assets.assets.model import configuration_hash
from mlops_assets.assets.scoring import PREDICTION_DESCRIPTIONS, prediction_columns, predictions_array
from mlops_assets.assets.training_dataset import dataset_rows_query
from mlops_assets.checks import gates
from mlops_assets.inputs import TRAINING_DATE, SolutionInputs
from mlops_assets.keys import EVALUATION, MODEL
from mlops_assets.resources.lake import Lake, PartitionRange, Written
from mlops_assets.resources.model_registry import (
    CONFIGURATION_TAG,
    GATES_FAILED,
    GATES_PASSED,
    GATES_TAG,
    TRAINING_DATE_TAG,
    ModelRegistry,
    RegisteredModel,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.evaluation import Evaluation
    from mlops_assets.serving.bundle import Bundle

_MINIMUM_SLICE_ROWS = 200


def build_evaluation(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The evaluation of one solution's candidate; its partition key is the training date."""
    key = inputs.key(EVALUATION)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description="The candidate on hold-out rows it never saw: metrics, slices, calibration, and the gates before deployment.",
        owners=solution.owners,
        group_name=inputs.name,
        kinds={"onnx", "mlflow"},
        tags=inputs.tags(EVALUATION),
        partitions_def=inputs.partitions,
        deps=[inputs.key(MODEL)],
        check_specs=[rule.spec(key) for rule in gates.rules_of(solution)],
        retry_policy=RETRIES,
        code_version="1",
    )
    def evaluation(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[ModelRegistry]
    ) -> dg.MaterializeResult:
        from mlops_assets.ml.evaluation import evaluate
        from mlops_assets.ml.problem import label_array

        training_date = partition_date(context)
        candidate = find_candidate(registry, inputs, training_date)
        with lake.connect(read_only=False) as connection, tempfile.TemporaryDirectory() as folder:
            bundle = _load(registry, candidate, Path(folder) / "candidate")
            holdout = connection.execute(dataset_rows_query(inputs, training_date, "holdout")).to_arrow_table()
            train = connection.execute(dataset_rows_query(inputs, training_date, "train")).to_arrow_table()
            label = solution.spine.label
            labels = label_array(holdout.column(label), solution.problem)
            training_labels = label_array(train.column(label), solution.problem)

            def judge(judged: "Bundle") -> "tuple[Evaluation, pa.Table]":
                scored = judged.score(holdout)
                result = evaluate(
                    problem=solution.problem,
                    labels=labels,
                    predictions=predictions_array(scored),
                    training_labels=training_labels,
                    classes=judged.contract.classes,
                    threshold=judged.contract.decision_threshold or 0.5,
                    slices=holdout.select(solution.gates.slices),
                    minimum_slice_rows=_MINIMUM_SLICE_ROWS,
                )
                return result, scored

            result, scored = judge(bundle)
            champion = registry.champion(inputs.name)
            rival = None
            if champion is not None and champion.version != candidate.version:
                rival_bundle = _load(registry, champion, Path(folder) / "champion")
                lacking = set(rival_bundle.contract.feature_schema.names) - set(holdout.column_names)
                rival = None if lacking else judge(rival_bundle)[0]
            written = _write(
                lake,
                connection,
                context,
                inputs=inputs,
                training_date=training_date,
                version=candidate.version,
                holdout=holdout,
                scored=scored,
            )
            column_schema = table_schema(
                connection, f"lake.{inputs.table(EVALUATION)}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS
            )
        checks = gates.check_evaluation(inputs, result, champion=champion, champion_result=rival)
        passed = all(check.passed for check in checks)
        registry.tag(inputs.name, candidate.version, {GATES_TAG: GATES_PASSED if passed else GATES_FAILED})
        plots = draw_plots(result, labels, scored, bundle.contract.classes, metric=solution.training.metric)
        registry.log(
            candidate.run_id, parameters={}, metrics={f"holdout_{name}": value for name, value in result.metrics.items()}
        )
        registry.log_json(candidate.run_id, result.as_dict(), "evaluation.json")
        registry.log_plots(candidate.run_id, plots)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(written.fingerprint),
            check_results=checks,
            metadata={
                **written_metadata(written),
                "dagster/column_schema": column_schema,
                "dagster/partition_row_count": written.rows,
                **result_metadata(result),
                "model_version": candidate.version,
                "mlflow": dg.MetadataValue.url(registry.version_url(candidate)),
                "gates_passed": passed,
                **plot_metadata(plots),
            },
        )

    return evaluation


def find_candidate(registry: ModelRegistry, inputs: SolutionInputs, training_date: date) -> RegisteredModel:
    """The newest version that was trained for `training_date` with the present configuration. Raises Failure when there is none."""
    tags = {TRAINING_DATE_TAG: training_date.isoformat(), CONFIGURATION_TAG: configuration_hash(inputs)}
    found = registry.find(inputs.name, tags)
    if found is None:
        raise permanent_failure(
            f"No model of {inputs.name} was trained for {training_date} with the present configuration: "
            f"materialize {inputs.name}/{MODEL} for that partition."
        )
    return found


def result_metadata(result: "Evaluation") -> dict[str, Any]:
    """The metrics beside those of the naive baseline, and the slices, for the asset's page."""
    rows = "\n".join(f"| {name} | {_shown(value)} | {_shown(result.baseline[name])} |" for name, value in result.metrics.items())
    metadata: dict[str, Any] = {
        "metrics": dg.MetadataValue.md(f"| metric | model | naive baseline |\n|---|---|---|\n{rows}"),
        "rows": result.rows,
    }
    metadata |= {name: value for name, value in result.metrics.items() if value is not None}
    metadata |= {f"baseline_{name}": value for name, value in result.baseline.items() if value is not None}
    if result.slices:
        names = list(result.metrics)[:4]
        header = f"| slice | rows | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n"
        lines = [
            f"| {each.column} = {each.value} | {each.rows} | {' | '.join(_shown(each.metrics[name]) for name in names)} |"
            for each in result.slices
        ]
        metadata["slices"] = dg.MetadataValue.md(header + "\n".join(lines))
    return metadata


def draw_plots(
    result: "Evaluation", labels: "np.ndarray", scored: "pa.Table", classes: tuple[int | str, ...], *, metric: str
) -> dict[str, bytes]:
    """PNG images by name, those that suit the problem and the rows."""
    from mlops_assets.ml import plots

    drawn: dict[str, bytes] = {}
    predictions = predictions_array(scored)
    if result.problem == "binary_classification" and 0 < labels.sum() < len(labels):
        drawn["ranking"] = plots.ranking_plot(labels, predictions)
        drawn["calibration"] = plots.calibration_plot(result)
        drawn["scores"] = plots.score_plot(labels, predictions, result.threshold or 0.5)
    if result.problem == "regression":
        drawn["residuals"] = plots.residual_plot(labels, predictions)
    else:
        predicted = scored.column("predicted_label").to_numpy(zero_copy_only=False)
        drawn["confusion"] = plots.confusion_plot(labels, predicted, classes)
    overall = result.metrics[metric]
    for column in dict.fromkeys(each.column for each in result.slices):
        chosen = [each for each in result.slices if each.column == column and each.metrics[metric] is not None]
        if chosen and overall is not None:
            drawn[f"slices_{column}"] = plots.slice_plot(chosen, metric, overall)
    return drawn


def plot_metadata(plots: Mapping[str, bytes]) -> dict[str, Any]:
    """Images for the asset's page."""
    from mlops_assets.ml.plots import markdown_image

    return {f"plot_{name}": dg.MetadataValue.md(markdown_image(name, png)) for name, png in plots.items()}


def _load(registry: ModelRegistry, model: RegisteredModel, folder: Path) -> "Bundle":
    from mlops_assets.serving.bundle import load_bundle

    folder.mkdir()
    return load_bundle(registry.download_bundle(model, folder))


def _write(
    lake: Lake,
    connection: duckdb.DuckDBPyConnection,
    context: dg.AssetExecutionContext,
    *,
    inputs: SolutionInputs,
    training_date: date,
    version: int,
    holdout: "pa.Table",
    scored: "pa.Table",
) -> Written:
    """Keep the scored hold-out: the reference that later predictions are compared with."""
    spine = inputs.solution.spine
    judged = holdout.select([spine.key, spine.prediction_time, spine.label])
    for name in prediction_columns(scored):
        judged = judged.append_column(name, scored.column(name))
    connection.register("judged_rows", judged)
    return lake.replace(
        connection,
        table=inputs.table(EVALUATION),
        query=f"SELECT DATE '{training_date}' AS {TRAINING_DATE}, {version} AS model_version, * FROM judged_rows",
        partition_range=PartitionRange(TRAINING_DATE, training_date, training_date + timedelta(days=1)),
        author=context.run.run_id,
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
