"""`retraining_decision`: the decision per window whether the solution is trained again, with its reasons. One partition a window.

It gathers what `ml/retraining.py` decides on, and writes the decision down; `monitoring/retraining_sensor.py` acts on it. A decision is
made on the day after its window and looks at nothing later, so that a decision made again is the same: of a label that became known
later it sees nothing, although the reports, which show what is known now, may.
"""

import hashlib
from datetime import date
from functools import cache, partial
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.keys import (
    DRIFT_REPORT,
    EVALUATION,
    OUTCOMES,
    PERFORMANCE_REPORT,
    RETRAINING_DECISION,
    TRAINING_DATASET,
    TRAINING_DATE,
)
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.tables import fingerprint
from mlops_assets.ml.retraining import RetrainingDecision, RetrainingPolicy, RetrainingState, decide
from mlops_assets.monitoring.known_performance import LoadVersion
from mlops_assets.monitoring.monitor import measuring_monitors
from mlops_assets.monitoring.monitored_windows import WINDOW, load_monitored_version, write_report
from mlops_assets.monitoring.retraining_facts import (
    content_columns,
    count_labelled,
    count_predictions,
    predicting_version,
    reported_windows,
    trained_rows_fingerprint,
    training_day,
)
from mlops_assets.monitoring.retraining_sensor import DECISION, OUTCOME, REASON, TRAIN_FOR, running_training
from mlops_assets.schema.column_names import MATURED, MODEL_VERSION
from mlops_assets.schema.duration import subtract_duration
from mlops_assets.schema.table_columns import TableColumn
from mlops_assets.stages.column_lineage import Sources, column_lineage
from mlops_assets.stages.execution import RETRIES
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.all_evaluations import whole_evaluations
from mlops_assets.training.training_dataset import labelled_rows

_COLUMNS = {
    WINDOW: TableColumn(type="DATE", nullable=False, description="First day of the monitoring window."),
    "decided_for": TableColumn(
        type="DATE",
        nullable=False,
        description="Day of the decision, and training date if it is to train: nothing later was looked at.",
    ),
    MODEL_VERSION: TableColumn(type="INTEGER", description="The version that predicted last in the window."),
    "trained_for": TableColumn(type="DATE", description="Training date of that version."),
    "predictions": TableColumn(type="BIGINT", description="How many predictions were made in the window, in all channels."),
    "drifted_share": TableColumn(type="DOUBLE", description="Share of the features with a drift alert in the window."),
    "metric": TableColumn(type="VARCHAR", nullable=False, description="The metric of the training section."),
    "estimated": TableColumn(type="DOUBLE", description="Its value as estimated without labels."),
    "realised": TableColumn(type="DOUBLE", description="Its value on matured labels; null until there are enough."),
    "bad_windows": TableColumn(type="INTEGER", nullable=False, description="How many of the last windows are bad."),
    "attempted": TableColumn(
        type="DATE", description="Newest training date before this one with an evaluated candidate, deployed or not."
    ),
    "new_rows": TableColumn(type="BIGINT", nullable=False, description="Rows whose label became known since."),
    "rows_fingerprint": TableColumn(type="VARCHAR", description="Identity of the labelled rows that a training would see now."),
    "outcome": TableColumn(
        type="VARCHAR",
        nullable=False,
        accepted=("retrain", "wait", "keep"),
        description="`retrain`, `wait` (a reason, and something against it) or `keep`.",
    ),
    "reason": TableColumn(type="VARCHAR", nullable=False, description="The decision in words."),
}


def build_retraining_decision(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The retraining decisions of one solution."""
    key = inputs.key(RETRAINING_DECISION)

    @dg.asset(
        key=key,
        description="Whether to train again after a window: the inputs, the rule's outcome and the reason in words.",
        kinds={"duckdb"},
        **inputs.asset_attributes(RETRAINING_DECISION),
        partitions_def=inputs.windows,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[
            inputs.key(DRIFT_REPORT),
            inputs.key(PERFORMANCE_REPORT),
            inputs.key(OUTCOMES),
            *(
                inputs.key(solution_monitor.stage)
                for solution_monitor in measuring_monitors(inputs.solution)
                if solution_monitor.monitor.asks_for_training
            ),
            inputs.spine_key,
            dg.AssetDep(inputs.key(TRAINING_DATASET), partition_mapping=dg.AllPartitionMapping()),
            *inputs.evaluations,
        ],
        retry_policy=RETRIES,
        code_version="2",
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
        with lake.connect(read_only=False) as connection:
            rows = [
                decide_window(connection, registry, inputs, window=date.fromisoformat(window), running=running, load=load)
                for window in context.partition_keys
            ]
            values = ", ".join(f"({', '.join('?' for _ in _COLUMNS)})" for _ in rows)
            selected = ", ".join(f"CAST({name} AS {column.type}) AS {name}" for name, column in _COLUMNS.items())
            connection.execute(
                f"CREATE OR REPLACE TEMP TABLE decisions AS SELECT {selected} FROM (VALUES {values}) t({', '.join(_COLUMNS)})",
                [row[name] for row in rows for name in _COLUMNS],
            )
            metadata = write_report(
                context,
                lake,
                connection,
                table=inputs.table(RETRAINING_DECISION),
                query="FROM temp.main.decisions",
                columns=_COLUMNS,
                lineage=_lineage(inputs),
            )
        for row in rows:
            context.log.info(f"{row[WINDOW]}: {row['outcome']}, {row['reason']}")
            context.add_asset_metadata(
                {
                    OUTCOME: row["outcome"],
                    REASON: row["reason"],
                    TRAIN_FOR: row["decided_for"].isoformat(),
                    DECISION: _identity(row),
                    "bad_windows": row["bad_windows"],
                    "new_rows": row["new_rows"],
                    MODEL_VERSION: row[MODEL_VERSION],
                },
                asset_key=context.asset_key,
                partition_key=row[WINDOW].isoformat(),
            )
        return dg.MaterializeResult(metadata=metadata)

    return retraining_decision


def _lineage(inputs: SolutionInputs) -> dict[str, dg.TableColumnLineage]:
    """Return the columns of the reports, the evaluations and the spine that each column of a decision is computed from."""
    drift, performance = inputs.key(DRIFT_REPORT), inputs.key(PERFORMANCE_REPORT)
    spine, spine_section = inputs.spine_key, inputs.solution.spine
    drifted = [(drift, "feature"), (drift, "alert")]
    own = [
        (inputs.key(solution_monitor.stage), "alert")
        for solution_monitor in measuring_monitors(inputs.solution)
        if solution_monitor.monitor.asks_for_training
    ]
    bad = [(performance, "alert"), (performance, "complete"), *own]
    measured = {name: [(performance, name)] for name in ("metric", "estimated", "realised")}
    outcomes = inputs.key(OUTCOMES)
    known = [(outcomes, name) for name in (spine_section.label, spine_section.label_time, MATURED)]
    measured["realised"] = [*measured["realised"], *known]
    labels = [(spine, spine_section.label), (spine, spine_section.label_time)]
    facts: Sources = {
        WINDOW: [(drift, WINDOW)],
        "decided_for": [(drift, WINDOW)],
        MODEL_VERSION: [(drift, MODEL_VERSION)],
        # Of the record in the registry of that version.
        "trained_for": [(drift, MODEL_VERSION)],
        "predictions": [(performance, "rows")],
        "drifted_share": drifted,
        **measured,
        "bad_windows": [*drifted, *bad, *known],
        "attempted": [(inputs.key(EVALUATION), TRAINING_DATE)],
        "new_rows": labels,
        "rows_fingerprint": [(spine, name) for name in inputs.spine.columns],
    }
    every = [source for of_fact in facts.values() for source in of_fact]
    return column_lineage({**facts, "outcome": every, "reason": every})


def decide_window(
    connection: duckdb.DuckDBPyConnection,
    registry: ModelRegistry,
    inputs: SolutionInputs,
    *,
    window: date,
    running: str | None,
    load: LoadVersion,
) -> dict[str, Any]:
    """The decision about one window as a row of the table. Raises Failure when nothing was reported of the window."""
    retraining_section = inputs.solution.retraining
    end = inputs.windows.time_window_for_partition_key(window.isoformat()).end.date()
    day = training_day(connection, inputs, end)
    champion = predicting_version(connection, registry, inputs, window)
    windows = reported_windows(
        connection,
        inputs,
        version=champion.version,
        window=window,
        count=retraining_section.recent_windows,
        moment=inputs.midnight(end),
        load=load,
    )
    evaluations = whole_evaluations(connection, inputs.name)
    # Without time the training of a day has read the snapshot of that day.
    before = "<" if inputs.solution.spine.has_time else "<="
    [[attempted]] = connection.execute(
        f"SELECT max({TRAINING_DATE}) FROM {evaluations} WHERE {TRAINING_DATE} {before} ?", [day]
    ).fetchall()
    rows = f"SELECT {content_columns(inputs)} FROM lake.{inputs.spine.table} WHERE {labelled_rows(inputs, day)}"
    identity = fingerprint(connection, f"({rows})")
    labelled, new_rows = count_labelled(connection, inputs, rows, attempted)
    state = RetrainingState(
        day=day,
        windows=windows,
        trained_for=champion.training.training_date,
        attempted=attempted,
        new_rows=new_rows,
        changed=identity != trained_rows_fingerprint(connection, inputs, attempted),
        running=running,
    )
    policy = RetrainingPolicy(
        minimum_bad_windows=retraining_section.minimum_bad_windows,
        recent_windows=retraining_section.recent_windows,
        maximum_drifted_share=inputs.solution.monitoring.drift.maximum_share_of_features,
        trained_before=subtract_duration(day, retraining_section.max_age) if retraining_section.max_age else None,
        attempted_after=subtract_duration(day, retraining_section.cooldown),
        minimum_new_rows=retraining_section.least_new_rows(labelled),
    )
    decision: RetrainingDecision = decide(state, policy)
    newest = windows[-1]
    return {
        WINDOW: window,
        "decided_for": day,
        MODEL_VERSION: champion.version,
        "trained_for": state.trained_for,
        "predictions": count_predictions(connection, inputs, window),
        "drifted_share": newest.drifted_share,
        "metric": newest.metric,
        "estimated": newest.estimated,
        "realised": newest.realised,
        "bad_windows": decision.bad_windows,
        "attempted": attempted,
        "new_rows": state.new_rows,
        "rows_fingerprint": identity,
        "outcome": decision.outcome,
        "reason": decision.text,
    }


def _identity(row: dict[str, Any]) -> str:
    """16 hexadecimal digits: the same for the same decision on the same rows about the same version."""
    names = (WINDOW, "decided_for", MODEL_VERSION, "rows_fingerprint", "outcome")
    return hashlib.sha256("|".join(str(row[name]) for name in names).encode()).hexdigest()[:16]
