"""The table of a solution's retraining decisions: its columns with their origins, and the decisions that it holds."""

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, get_args

import dagster as dg
import duckdb

from mlops_assets.core.keys import (
    DRIFT_REPORT,
    EVALUATION,
    OUTCOMES,
    PERFORMANCE_REPORT,
    RETRAINING_DECISION,
    TRAINING_DATASET,
    TRAINING_DATE,
)
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.ml.decision_history import EarlierDecision
from mlops_assets.ml.retraining import Outcome
from mlops_assets.monitoring.monitor import measuring_monitors
from mlops_assets.monitoring.monitored_windows import WINDOW
from mlops_assets.schema.column_names import MATURED, MODEL_VERSION, PREDICTION_ID
from mlops_assets.schema.table_columns import TableColumn
from mlops_assets.stages.column_lineage import Sources, column_lineage
from mlops_assets.stages.inputs import SolutionInputs

if TYPE_CHECKING:
    from mlops_assets.ml.loss_comparison import LossDifference


def _difference_columns(name: str, meaning: str) -> dict[str, TableColumn]:
    """Columns of a difference of two mean losses on the same rows; null where nothing was compared."""
    return {
        f"{name}_loss": TableColumn(type="DOUBLE", description=f"By how much the version {meaning}."),
        f"{name}_low": TableColumn(type="DOUBLE", description="Lower end of its interval."),
        f"{name}_high": TableColumn(type="DOUBLE", description="Upper end of its interval."),
        f"{name}_windows": TableColumn(type="INTEGER", description="Over how many of the last windows."),
        f"{name}_rows": TableColumn(type="BIGINT", description="On how many rows with known labels."),
    }


COLUMNS: Mapping[str, TableColumn] = {
    WINDOW: TableColumn(type="DATE", nullable=False, description="First day of the monitoring window."),
    "decided_for": TableColumn(
        type="DATE",
        nullable=False,
        description="Day of the decision, and training date if it is to train: nothing later was looked at.",
    ),
    MODEL_VERSION: TableColumn(type="INTEGER", description="The version that predicted last in the window."),
    "trained_for": TableColumn(type="DATE", description="Training date of that version; of a recalibrated one, that of the fit."),
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
    "previous_version": TableColumn(type="INTEGER", description="The version that it replaced and may go back to."),
    **_difference_columns("rollback", "loses more than the previous version; positive: a reason to go back"),
    **_difference_columns("recalibration", "would lose more if it were recalibrated; negative: a reason to do so"),
    **_difference_columns("forecast", "would lose more, a day of age, if it were younger; negative: a reason to train"),
    "forecast_due": TableColumn(type="DOUBLE", description="From which age in days a training pays; null: none does."),
    "probes": TableColumn(
        type="VARCHAR", description="Losses of the probes in the newest window with known labels by day, a day of age, as JSON."
    ),
    "must_gain": TableColumn(
        type="BOOLEAN", description="Whether a trained candidate must be better beyond chance to replace the version."
    ),
    "outcome": TableColumn(
        type="VARCHAR",
        nullable=False,
        accepted=get_args(Outcome),
        description="`keep`, `recalibrate`, `roll back`, `retrain`, `wait` (a reason, and something against it) or `ask` (a person).",
    ),
    "reason": TableColumn(type="VARCHAR", nullable=False, description="The decision in words."),
}

DIFFERENCES = tuple(name for name in COLUMNS if name.startswith(("rollback_", "recalibration_", "forecast_")))
"""The columns of the differences of losses."""


def difference_values(name: str, difference: "LossDifference | None") -> dict[str, float | None]:
    """Return the values of the columns of a difference."""
    fields = {"loss": "value", "low": "low", "high": "high", "windows": "windows", "rows": "rows"}
    return {f"{name}_{column}": None if difference is None else getattr(difference, field) for column, field in fields.items()}


def earlier_decisions(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, window: date) -> list[EarlierDecision]:
    """Return the stored decisions about the windows before `window`, in order."""
    table = inputs.table(RETRAINING_DECISION)
    if not table_exists(connection, table):
        return []
    # A table of an earlier release, which rolled nothing back and had no probes, has no such columns.
    present = column_types(connection, f"lake.{table}")
    previous, probes = (name if name in present else "NULL" for name in ("previous_version", "probes"))
    rows = connection.execute(
        f"SELECT {WINDOW}, decided_for, {MODEL_VERSION}, trained_for, {previous}, outcome, {probes} FROM lake.{table} "
        f"WHERE {WINDOW} < ? ORDER BY 1",
        [window],
    ).fetchall()
    return [
        EarlierDecision(
            window=window, day=day, version=version, trained_for=trained_for, previous=before, outcome=outcome, probes=measured
        )
        for window, day, version, trained_for, before, outcome, measured in rows
    ]


def earlier_decision(row: dict[str, Any]) -> EarlierDecision:
    """The row of a decision as what a later one knows of it."""
    return EarlierDecision(
        window=row[WINDOW],
        day=row["decided_for"],
        version=row[MODEL_VERSION],
        trained_for=row["trained_for"],
        previous=row["previous_version"],
        outcome=row["outcome"],
        probes=row["probes"],
    )


def decision_identity(row: dict[str, Any]) -> str:
    """Return 16 hexadecimal digits: the same for the same decision on the same day about the same version.

    The labelled rows are no part of it. A correction of some labels gives them another fingerprint, and would have the training of the day,
    which may have been refused, launched once more, whatever the cooldown: a training counts as tried from the next day of a decision on.
    """
    names = (WINDOW, "decided_for", MODEL_VERSION, "outcome")
    return hashlib.sha256("|".join(str(row[name]) for name in names).encode()).hexdigest()[:16]


def decision_lineage(inputs: SolutionInputs) -> dict[str, dg.TableColumnLineage]:
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
    # The feature values are those of the predictions with these ids.
    compared = [(outcomes, PREDICTION_ID), *known]
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
        "previous_version": [(drift, MODEL_VERSION)],
        **dict.fromkeys(DIFFERENCES, compared),
        "probes": [*compared, (inputs.key(TRAINING_DATASET), spine_section.label)],
        "rows_fingerprint": [(spine, name) for name in inputs.spine.columns],
    }
    every = [source for of_fact in facts.values() for source in of_fact]
    return column_lineage({**facts, "outcome": every, "reason": every, "must_gain": every})
