"""`retraining_decision`: the decision per window whether the solution is trained again, with its reasons. One partition a window.

It gathers what `ml/retraining.py` decides on, and writes the decision down; `monitoring/retraining_sensor.py` acts on it. A decision is
made on the day after its window and looks at nothing later, so that a decision made again is the same: of a label that became known
later it sees nothing, although the reports, which show what is known now, may.
"""

from collections.abc import Sequence
from datetime import date
from functools import cache, partial
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.keys import DEPLOYMENT, DRIFT_REPORT, PERFORMANCE_REPORT, RETRAINING_DECISION, TRAINING_DATASET
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import lake_name
from mlops_assets.lake.tables import fingerprint
from mlops_assets.ml.decision_history import DecisionHistory, EarlierDecision
from mlops_assets.ml.retraining import RetrainingDecision, RetrainingPolicy, RetrainingState, decide
from mlops_assets.monitoring.compared_losses import NOT_COMPARED, ComparedVersions, RegisteredVersions, compare_versions
from mlops_assets.monitoring.decision_table import (
    COLUMNS,
    DIFFERENCES,
    decision_identity,
    decision_lineage,
    difference_values,
    earlier_decision,
    earlier_decisions,
)
from mlops_assets.monitoring.known_performance import LoadVersion
from mlops_assets.monitoring.monitor import measuring_monitors
from mlops_assets.monitoring.monitored_windows import WINDOW, load_monitored_version, window_dependencies, write_report
from mlops_assets.monitoring.probe_losses import ProbeLosses, losses_as_text, losses_from_text, measure_probes
from mlops_assets.monitoring.retraining_facts import (
    content_columns,
    count_labelled,
    count_predictions,
    count_served_windows,
    evaluated_dates,
    predicting_version,
    reported_windows,
    trained_rows_fingerprint,
    training_day,
)
from mlops_assets.monitoring.retraining_sensor import (
    ATTEMPTED,
    DECISION,
    MUST_GAIN,
    OUTCOME,
    REASON,
    RETURN_PARTITION,
    RETURN_TO,
    TRAIN_FOR,
    VERSION,
    running_training,
)
from mlops_assets.schema.cadence import CADENCE_LENGTHS
from mlops_assets.schema.column_names import MODEL_VERSION
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.stages.execution import RETRIES
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.training_frame import labelled_rows


def build_retraining_decision(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The retraining decisions of one solution."""
    key = inputs.key(RETRAINING_DECISION)

    @dg.asset(
        key=key,
        description="What becomes of the version that predicts after a window: the inputs, the outcome of the rule and the reason in words.",
        kinds={"duckdb"},
        **inputs.asset_attributes(RETRAINING_DECISION),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            inputs.key(DRIFT_REPORT),
            inputs.key(PERFORMANCE_REPORT),
            *(
                inputs.key(solution_monitor.stage)
                for solution_monitor in measuring_monitors(inputs.solution)
                if solution_monitor.monitor.asks_for_training
            ),
            inputs.spine_key,
            # Which version served before is recorded with the deployments.
            *(
                dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping())
                for key in (inputs.key(TRAINING_DATASET), inputs.key(DEPLOYMENT))
            ),
            *window_dependencies(inputs),
        ],
        retry_policy=RETRIES,
        code_version="5",
    )
    @step
    def retraining_decision(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        running = running_training(context.instance, inputs.name)
        load = cache(partial(load_monitored_version, inputs, registry, settings))
        versions = RegisteredVersions(inputs, context.instance, registry, settings)
        with lake.connect(read_only=False) as connection:
            earlier = earlier_decisions(connection, inputs, date.fromisoformat(context.partition_keys[0]))
            rows: list[dict[str, Any]] = []
            for window in context.partition_keys:
                rows.append(
                    decide_window(
                        connection,
                        registry,
                        inputs,
                        window=date.fromisoformat(window),
                        earlier=[*earlier, *map(earlier_decision, rows)],
                        running=running,
                        load=load,
                        versions=versions,
                    )
                )
            values = ", ".join(f"({', '.join('?' for _ in COLUMNS)})" for _ in rows)
            selected = ", ".join(f"CAST({name} AS {column.type}) AS {name}" for name, column in COLUMNS.items())
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE decisions AS SELECT {selected} FROM (VALUES {values}) t({', '.join(COLUMNS)})",
                [row[name] for row in rows for name in COLUMNS],
            )
            metadata = write_report(
                context,
                lake,
                connection,
                table=inputs.table(RETRAINING_DECISION),
                query="FROM temp.main.decisions",
                columns=COLUMNS,
                lineage=decision_lineage(inputs),
            )
        for row in rows:
            context.log.info(f"{row[WINDOW]}: {row['outcome']}, {row['reason']}")
            context.add_asset_metadata(
                {
                    OUTCOME: row["outcome"],
                    REASON: row["reason"],
                    TRAIN_FOR: row["decided_for"].isoformat(),
                    DECISION: decision_identity(row),
                    "bad_windows": row["bad_windows"],
                    "new_rows": row["new_rows"],
                    VERSION: row[MODEL_VERSION],
                    ATTEMPTED: str(row["attempted"]),
                    MUST_GAIN: row["must_gain"],
                    **_return_to(registry, inputs, row),
                    **{name: row[name] for name in DIFFERENCES if row[name] is not None},
                },
                asset_key=context.asset_key,
                partition_key=row[WINDOW].isoformat(),
            )
        return dg.MaterializeResult(metadata=metadata)

    return retraining_decision


def decide_window(
    connection: duckdb.DuckDBPyConnection,
    registry: ModelRegistry,
    inputs: SolutionInputs,
    *,
    window: date,
    earlier: Sequence[EarlierDecision],
    running: str | None,
    load: LoadVersion,
    versions: ComparedVersions,
) -> dict[str, Any]:
    """The decision about one window as a row of the table. Raises Failure when nothing was reported of the window."""
    section = inputs.solution.retraining
    end = inputs.windows.time_window_for_partition_key(window.isoformat()).end.date()
    day, moment = training_day(connection, inputs, end), inputs.midnight(end)
    champion = predicting_version(connection, registry, inputs, window)
    version, fitted = champion.version, champion
    if champion.training.recalibrates is not None:
        fitted = registry.registered_record(registry.get(inputs.name, champion.training.recalibrates))
    trained_for = fitted.training.training_date
    evaluated = evaluated_dates(connection, registry, inputs, day, since=trained_for)
    history = DecisionHistory(earlier, version, trained_for, evaluated.every, evaluated.recalibrations)
    windows = reported_windows(
        connection,
        inputs,
        version=version,
        after=history.replaced_in,
        window=window,
        count=section.recent_windows,
        moment=moment,
        load=load,
    )
    attempted = history.attempted
    rows = f"SELECT {content_columns(inputs)} FROM {lake_name(inputs.spine.table)} WHERE {labelled_rows(inputs, day)}"
    identity = fingerprint(connection, f"({rows})")
    labelled, new_rows = count_labelled(connection, inputs, rows, attempted)
    served_windows = count_served_windows(connection, inputs, version, window)
    policy, predictions = _policy(inputs, day, labelled), count_predictions(connection, inputs, window)
    is_watched = policy.is_watching(served_windows) and history.may_roll_back
    previous = versions.before(version, champion.training.training_date) if is_watched else None
    compared = (
        compare_versions(
            connection,
            inputs,
            versions,
            version=version,
            fitted=fitted.version,
            previous=previous,
            window=window,
            moment=moment,
        )
        if previous is not None or policy.recalibrates or policy.forecasts
        else NOT_COMPARED
    )
    probes = (
        measure_probes(connection, inputs, versions.contract(version), trained_for=trained_for, window=window, moment=moment)
        if policy.forecasts
        else ProbeLosses(None)
    )
    measured = [decided.probes for decided in earlier if decided.probes]
    state = RetrainingState(
        day=day,
        windows=windows,
        trained_for=trained_for,
        attempted=attempted,
        new_rows=new_rows,
        changed=identity != trained_rows_fingerprint(connection, inputs, attempted),
        running=running,
        losses=compared.windows,
        served_windows=served_windows,
        rolled_back=history.rolled_back,
        refused=history.refused,
        refused_recalibrations=history.refused_recalibrations,
        ages=[*map(losses_from_text, measured), *([] if probes.losses is None else [probes.losses])],
        predictions=predictions,
        window_days=CADENCE_LENGTHS[inputs.solution.monitoring.window].fewest_days,
    )
    decision: RetrainingDecision = decide(state, policy)
    other = (
        f". Version {previous}, the one before, reads or answers other things: {compared.obstacle}" if compared.obstacle else ""
    )
    if probes.obstacle is not None:
        other += f". {probes.obstacle}"
    newest = windows[-1]
    return {
        WINDOW: window,
        "decided_for": day,
        MODEL_VERSION: version,
        "trained_for": trained_for,
        "predictions": predictions,
        "drifted_share": newest.drifted_share,
        "metric": newest.metric,
        "estimated": newest.estimated,
        "realised": newest.realised,
        "bad_windows": decision.bad_windows,
        "attempted": attempted,
        "new_rows": new_rows,
        "rows_fingerprint": identity,
        "previous_version": previous,
        **difference_values("rollback", decision.rollback),
        **difference_values("recalibration", decision.recalibration),
        **difference_values("forecast", None if decision.forecast is None else decision.forecast.day_of_age),
        "forecast_due": decision.forecast and decision.forecast.due,
        "probes": losses_as_text(probes.losses),
        "must_gain": decision.must_gain,
        "outcome": decision.outcome,
        "reason": f"{decision.text}{other}",
    }


def _policy(inputs: SolutionInputs, day: date, labelled: int) -> RetrainingPolicy:
    """The conditions in the YAML of the solution, on a day with so many labelled rows."""
    from mlops_assets.ml.training_forecast import TrainingCosts

    section = inputs.solution.retraining
    return RetrainingPolicy(
        minimum_bad_windows=section.minimum_bad_windows,
        recent_windows=section.recent_windows,
        maximum_drifted_share=inputs.solution.monitoring.drift.maximum_share_of_features,
        trained_before=subtract_duration(day, section.max_age) if section.max_age else None,
        attempted_after=subtract_duration(day, section.cooldown),
        minimum_new_rows=section.least_new_rows(labelled),
        refused=section.refused,
        watch=section.watch,
        rolls_back=section.roll_back,
        # Without time there are no later rows to recalibrate by.
        recalibrates=section.recalibrate and inputs.solution.spine.has_time,
        forecasts=section.forecast and inputs.solution.spine.has_time,
        costs=None if section.costs is None else TrainingCosts(section.costs.training, section.costs.loss),
    )


def _return_to(registry: ModelRegistry, inputs: SolutionInputs, row: dict[str, Any]) -> dict[str, Any]:
    """The metadata that name the version which a rollback goes back to, with its partition of `deployment`."""
    if row["outcome"] != "roll back":
        return {}
    record = registry.registered_record(registry.get(inputs.name, row["previous_version"]))
    return {RETURN_TO: record.version, RETURN_PARTITION: record.training.training_date.isoformat()}
