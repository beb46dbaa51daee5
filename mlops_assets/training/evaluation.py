"""`evaluation`: the candidate's serving bundle evaluated on the temporal hold-out, with the gates a deployment needs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import TRAINING_DATE_TAG, RegisteredModel
from mlops_assets.core.keys import EVALUATION, MODEL, MUST_GAIN_TAG, SEGMENT, TRAINING_DATASET, TRAINING_DATE
from mlops_assets.core.prediction_columns import PREDICTION_DESCRIPTIONS, prediction_columns
from mlops_assets.core.settings import Settings
from mlops_assets.lake.datasets import newest_dataset
from mlops_assets.lake.lake import Lake, WriteResult
from mlops_assets.lake.partition_range import ColumnValue, PartitionRange
from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import fingerprint
from mlops_assets.stages.column_lineage import evaluation_lineage
from mlops_assets.stages.execution import RETRIES, model_of_run, permanent_failure, table_schema, written_metadata
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.stages.refusal import conclude
from mlops_assets.training.bundle_reading import fitted_version, read_bundle, read_gated_bundle
from mlops_assets.training.candidate_evaluation import CandidateEvaluation, evaluate_candidate
from mlops_assets.training.evaluation_page import draw_candidate_plots, plot_metadata, result_metadata
from mlops_assets.training.evidence import GATES_PASSED_METADATA
from mlops_assets.training.gate import check_evaluation, gate_rules, rejection_reason
from mlops_assets.training.kept_bundles import prune_bundles
from mlops_assets.training.model import candidate_alias, dataset_mapping, parity_refusal
from mlops_assets.training.monitoring_reference import copy_reference, log_reference
from mlops_assets.training.recorded_checks import dataset_state
from mlops_assets.training.reference_period import measure_period
from mlops_assets.training.rival import find_leads, find_rival
from mlops_assets.training.training_dataset import dataset_query, dataset_rows_query

if TYPE_CHECKING:
    import pyarrow as pa


CARD_HTML, CARD_MARKDOWN = "model_card.html", "model_card.md"
"""Artifacts of a version's run."""


def build_evaluation(solution_inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The evaluation of one solution's candidate; its partition key is that of the model."""
    key = solution_inputs.key(EVALUATION)
    solution = solution_inputs.solution

    @dg.asset(
        key=key,
        description="The candidate on hold-out rows it never saw: metrics, slices, calibration, and the gates before deployment.",
        kinds={"onnx", "mlflow"},
        **solution_inputs.asset_attributes(EVALUATION),
        partitions_def=solution_inputs.training_partitions,
        deps=[
            solution_inputs.key(MODEL),
            dg.AssetDep(solution_inputs.key(TRAINING_DATASET), partition_mapping=dataset_mapping(solution_inputs)),
        ],
        check_specs=[rule.spec(key) for rule in gate_rules(solution)],
        retry_policy=RETRIES,
        code_version="5",
        output_required=False,
    )
    @step
    def evaluation(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        from mlops_assets.ml.model_card import render_html, render_markdown
        from mlops_assets.schema.problem import label_array
        from mlops_assets.serving.engine import choose_engine
        from mlops_assets.training.model_card import CardSources, build_card

        training_date, inputs = model_of_run(context, solution_inputs)
        candidate = find_candidate(registry, inputs, training_date)
        with lake.connect(read_only=False) as connection:
            record = registry.registered_record(candidate)
            base = None if record.training.recalibrates is None else fitted_version(registry, candidate)
            # A recalibrated version has the model of a version that saw rows before its own training date.
            since = None if base is None else registry.registered_record(base).training.training_date
            # The gates evaluate what has not seen the hold-out.
            gated = read_gated_bundle(registry, settings, candidate)
            served = read_bundle(registry, settings, candidate) if record.is_refitted else gated
            holdout = connection.execute(dataset_rows_query(inputs, training_date, "holdout", since)).to_arrow_table()
            train_rows = dataset_rows_query(inputs, training_date, "train")
            train = connection.execute(f"SELECT {quote(solution.spine.label)} FROM ({train_rows})").to_arrow_table()
            present = fingerprint(connection, dataset_query(inputs, training_date))
            unchanged = present == record.training.dataset_fingerprint
            evaluated = evaluate_candidate(
                solution,
                gated,
                served=served if record.is_refitted else None,
                rival=find_rival(
                    context.instance,
                    registry,
                    settings,
                    inputs,
                    candidate=candidate,
                    bundle=gated,
                    holdout=holdout,
                    since=since,
                ),
                holdout=holdout,
                training_labels=label_array(train.column(0), solution.problem),
                dataset=dataset_state(context.instance, inputs, training_date, unchanged=unchanged),
                must_gain=MUST_GAIN_TAG in context.run.tags,
            )
            written = _write(
                lake,
                connection,
                context,
                inputs=inputs,
                training_date=training_date,
                version=candidate.version,
                holdout=holdout,
                scored=evaluated.scored,
            )
            column_schema = table_schema(
                connection, f"lake.{inputs.table(EVALUATION)}", inputs.column_descriptions | PREDICTION_DESCRIPTIONS
            )
            dataset = newest_dataset(connection, inputs.table(TRAINING_DATASET), training_date)
            if unchanged and base is not None:
                # Measured on the recalibrated rows alone it would call usual what made a recalibration necessary.
                copy_reference(registry, settings, candidate, base)
            elif unchanged:
                # Else these rows are not those of the version: it keeps the reference that it has, and its gates refuse it.
                importances = evaluated.importances
                log_reference(
                    connection,
                    registry,
                    settings,
                    inputs,
                    candidate=candidate,
                    holdout=holdout,
                    scored=evaluated.scored,
                    period=measure_period(connection, inputs, gated, training_date),
                    importance={feature.feature: feature.loss for feature in importances.features} if importances else {},
                    leads=find_leads(
                        registry,
                        settings,
                        candidate,
                        champion=evaluated.candidate_result.champion,
                        differences=evaluated.candidate_result.against_champion,
                    ),
                )
        checks = check_evaluation(inputs, evaluated.candidate_result)
        parity = parity_refusal(record.precision, solution.gates.maximum_onnx_difference)
        because = "; ".join(filter(None, (parity, rejection_reason(checks)))) or None
        engine = choose_engine(served.contract, solution.serving.engine, evaluated.candidate_result.latency)
        if because is None:
            registry.accept(candidate, record, engine=engine.engine, reason=engine.reason)
        else:
            registry.reject(candidate, because)
            prune_bundles(registry, settings, inputs.name)
        figures = draw_candidate_plots(evaluated, gated.contract, metric=solution.training.metric)
        card = build_card(
            CardSources(
                inputs=inputs,
                candidate=candidate,
                contract=served.contract,
                is_refitted=record.is_refitted,
                evaluated=evaluated,
                checks=checks,
                parameters=registry.parameters(candidate.run_id),
                dataset=dataset,
                training_rows=train.num_rows,
                holdout=holdout,
            ),
            links={
                "Version in MLflow": registry.version_url(candidate),
                "Training run in MLflow": registry.run_url(candidate.run_id),
            },
            figures=figures,
        )
        registry.log_texts(candidate.run_id, {CARD_HTML: render_html(card), CARD_MARKDOWN: render_markdown(card)})
        _log(registry, candidate, evaluated, checks, figures)
        metrics = evaluated.candidate_result.result
        result: dg.MaterializeResult = dg.MaterializeResult(
            data_version=dg.DataVersion(written.fingerprint),
            check_results=checks,
            metadata={
                **written_metadata(written),
                "dagster/column_schema": column_schema,
                **evaluation_lineage(inputs, (column.name for column in column_schema.columns)),
                "dagster/partition_row_count": written.rows,
                "model_card": dg.MetadataValue.md(render_markdown(card)),
                "model_card_page": dg.MetadataValue.url(registry.artifact_url(candidate.run_id, CARD_HTML)),
                "model_version": candidate.version,
                "mlflow": dg.MetadataValue.url(registry.version_url(candidate)),
                GATES_PASSED_METADATA: because is None,
                "serving_engine": engine.engine,
                "serving_engine_reason": engine.reason,
                **result_metadata(metrics),
                **plot_metadata(figures),
            },
        )
        yield from conclude(context, result, because)

    return evaluation


def find_candidate(registry: ModelRegistry, inputs: SolutionInputs, training_date: date) -> RegisteredModel:
    """The version that `model` made, or found again, for `training_date`. Raises Failure when there is none, or the alias was moved."""
    candidate = registry.by_alias(inputs.name, candidate_alias(training_date, inputs.segment))
    key = inputs.key(MODEL).to_user_string()
    if candidate is None:
        raise permanent_failure(
            f"No model of {inputs.name} was trained for {training_date}: materialize {key} for that partition."
        )
    if (candidate.tags.get(TRAINING_DATE_TAG), candidate.segment) != (training_date.isoformat(), inputs.segment):
        raise permanent_failure(
            f"The alias {candidate_alias(training_date, inputs.segment)} was moved by hand to {candidate}, which was trained for "
            f"{candidate.tags.get(TRAINING_DATE_TAG)}: materialize {key} for {training_date} again."
        )
    return candidate


def _log(
    registry: ModelRegistry,
    candidate: RegisteredModel,
    evaluated: CandidateEvaluation,
    checks: Sequence[dg.AssetCheckResult],
    figures: dict[str, bytes],
) -> None:
    """Keep all that was found with the candidate's run in MLflow."""
    candidate_result = evaluated.candidate_result
    registry.log(
        candidate.run_id,
        parameters={},
        metrics={f"holdout_{name}": value for name, value in candidate_result.result.metrics.items()}
        | {"latency_p50_milliseconds": candidate_result.latency.p50, "latency_p99_milliseconds": candidate_result.latency.p99},
    )
    content = candidate_result.result.as_dict() | {
        "against_champion": {name: asdict(difference) for name, difference in candidate_result.against_champion.items()},
        "champion": None if candidate_result.champion is None else candidate_result.champion.version,
        "importance": None if evaluated.importances is None else asdict(evaluated.importances),
        "gates": [{"name": check.check_name, "passed": check.passed, "description": check.description} for check in checks],
    }
    registry.log_json(candidate.run_id, content, "evaluation.json")
    registry.log_plots(candidate.run_id, figures)


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
) -> WriteResult:
    """Keep the scored hold-out: the reference that later predictions are compared with."""
    spine = inputs.solution.spine
    evaluated = holdout.select([spine.key, spine.prediction_time, spine.label])
    for name in prediction_columns(scored):
        evaluated = evaluated.append_column(name, scored.column(name))
    connection.register("evaluated_rows", evaluated)
    # The models of all segments are evaluated in one table, each on its own rows.
    own_rows = ColumnValue(SEGMENT, inputs.segment) if inputs.segment else None
    segment = f"{literal(own_rows.value)} AS {SEGMENT}, " if own_rows else ""
    return lake.replace(
        connection,
        table=inputs.table(EVALUATION),
        query=f"SELECT DATE '{training_date}' AS {TRAINING_DATE}, {version} AS model_version, {segment}* FROM evaluated_rows",
        partition_range=PartitionRange(TRAINING_DATE, training_date, training_date + timedelta(days=1), rows=own_rows),
        author=context.run.run_id,
    )
