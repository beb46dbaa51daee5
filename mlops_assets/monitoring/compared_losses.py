"""Losses of the version that predicts, of the one before it, and of itself recalibrated, on the same recent rows with known labels.

The rows are those that the version predicted. The one before it scores the features that were stored with the predictions. At most twelve
windows are read: what a decision costs does not depend on the history.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

import dagster as dg
import duckdb

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.keys import OUTCOMES
from mlops_assets.core.prediction_columns import predictions_array
from mlops_assets.core.settings import Settings
from mlops_assets.lake.sql import is_one_of, literal, quote, sql_moment
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.monitoring.monitored_windows import STAGED_WINDOW, windows_from_keys
from mlops_assets.predictions.all_predictions import require_predictions
from mlops_assets.schema.column_names import MATURED, MODEL_VERSION, OUTPUTS, PREDICTION_ID, internal
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.bundle_reading import read_bundle, read_contract

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.ml.loss_comparison import WindowLosses
    from mlops_assets.serving.bundle import Bundle
    from mlops_assets.serving.contract import Contract

_MOST_WINDOWS = 12
_DAY, _KNOWN = internal("day"), internal("known")


class ComparedVersions(Protocol):
    """The versions of a solution, as far as they are compared."""

    def contract(self, version: int) -> "Contract":
        """Return the contract of a version."""
        ...

    def bundle(self, version: int) -> "Bundle":
        """Return the bundle of a version."""
        ...

    def before(self, version: int, training_date: date) -> int | None:
        """Return the version that the first deployment of `version`, trained for `training_date`, replaced; None without one."""
        ...


@dataclass(frozen=True)
class RegisteredVersions:
    """The versions in the registry, with the history of deployments in Dagster."""

    inputs: SolutionInputs
    instance: dg.DagsterInstance
    registry: ModelRegistry
    settings: Settings

    def contract(self, version: int) -> "Contract":
        """Return the contract of a version."""
        return read_contract(self.registry, self.settings, self.registry.get(self.inputs.name, version))

    def bundle(self, version: int) -> "Bundle":
        """Return the bundle of a version."""
        return read_bundle(self.registry, self.settings, self.registry.get(self.inputs.name, version))

    def before(self, version: int, training_date: date) -> int | None:
        """Return the version that was replaced."""
        return self.inputs.deployment_target.version_before(self.instance, version, training_date.isoformat())


@dataclass(frozen=True)
class ComparedLosses:
    """The losses by window, in order of time, and why the version before is not among them although there is one."""

    windows: "Sequence[WindowLosses]"
    obstacle: str | None


NOT_COMPARED = ComparedLosses((), None)


def compare_versions(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    versions: ComparedVersions,
    *,
    version: int,
    fitted: int,
    previous: int | None,
    window: date,
    moment: datetime,
) -> ComparedLosses:
    """Return the losses on what `version` predicted in the last windows up to `window`, with the labels known at `moment`.

    `fitted` is the version itself, or that whose model file it has: a recalibrated one is recalibrated anew from its plain predictions, by the
    labels of both versions.
    """
    contract = versions.contract(version)
    obstacle: str | None = None
    read: Sequence[str] = contract.feature_schema.names if fitted != version else ()
    if previous is not None:
        before = versions.contract(previous)
        obstacle = _difference(contract, before)
        read = read or before.feature_schema.names
    is_compared = previous is not None and obstacle is None
    features = read if is_compared or fitted != version else ()
    rows = labelled_predictions(connection, inputs, contract, {version, fitted}, features, window=window, moment=moment)
    if rows is None or not rows.num_rows:
        return ComparedLosses([], obstacle)
    bundle = versions.bundle(previous) if previous is not None and is_compared else None
    plain = versions.bundle(fitted) if fitted != version else None
    return ComparedLosses(_losses_by_window(inputs, contract, rows, version, previous=bundle, plain=plain), obstacle)


def labelled_predictions(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    contract: "Contract",
    versions: Collection[int] | None,
    features: Sequence[str],
    *,
    window: date,
    moment: datetime,
) -> "pa.Table | None":
    """Return the outcomes of `versions` (None: of all) with the stored `features`, in order of time.

    Of each window they are a sample by the hash of their key.
    """
    if not table_exists(connection, inputs.table(OUTCOMES)):
        return None
    keys = [key for key in inputs.windows.get_partition_keys() if key <= window.isoformat()][-_MOST_WINDOWS:]
    windows, spine = windows_from_keys(inputs, keys), inputs.solution.spine
    outcomes = f"lake.{inputs.table(OUTCOMES)}"
    outputs = [name for name in column_types(connection, outcomes) if name in OUTPUTS]
    bounds = ", ".join(f"(DATE '{key}', DATE '{period.start}', DATE '{period.end}')" for key, period in windows.ranges.items())
    column, label_time = quote(inputs.solution.partitions.column), quote(spine.label_time)
    local = f"o.{quote(spine.prediction_time)} AT TIME ZONE {literal(inputs.solution.partitions.time_zone)}"
    selected = [
        f"o.{quote(name)}"
        for name in dict.fromkeys((PREDICTION_ID, MODEL_VERSION, spine.prediction_time, spine.label_time, spine.label, *outputs))
    ]
    stored = ""
    if features:
        selected += [f"p.{quote(name)}" for name in features]
        predictions = require_predictions(connection, inputs.name)
        stored = f"JOIN (FROM {predictions} t WHERE {windows.whole.predicate('t')}) p ON p.{PREDICTION_ID} = o.{PREDICTION_ID} "
    known_classes = ""
    if inputs.solution.problem == "multiclass_classification":
        # A class that the model does not have is one that no version could have predicted.
        known_classes = f"AND {is_one_of(f'CAST(o.{quote(spine.label)} AS VARCHAR)', map(str, contract.classes))} "
    of_versions = "true" if versions is None else f"o.{MODEL_VERSION} IN ({', '.join(map(str, versions))})"
    order = f"PARTITION BY w.{STAGED_WINDOW} ORDER BY hash(o.{quote(spine.key)}), o.{PREDICTION_ID}"
    return connection.execute(
        f"SELECT {', '.join(selected)}, w.{STAGED_WINDOW}, CAST({local} AS DATE) AS {_DAY}, epoch_us(o.{label_time}) AS {_KNOWN} "
        f"FROM {outcomes} o JOIN (VALUES {bounds}) w({STAGED_WINDOW}, first, after) ON o.{column} >= w.first AND o.{column} < w.after "
        f"{stored}WHERE {of_versions} AND o.{MATURED} AND {windows.whole.predicate('o')} "
        f"AND o.{label_time} <= {sql_moment(moment)} {known_classes}"
        f"QUALIFY row_number() OVER ({order}) <= {inputs.solution.monitoring.drift.maximum_rows} "
        f"ORDER BY o.{quote(spine.prediction_time)}, o.{PREDICTION_ID}"
    ).to_arrow_table()


def _losses_by_window(
    inputs: SolutionInputs,
    contract: "Contract",
    rows: "pa.Table",
    version: int,
    *,
    previous: "Bundle | None",
    plain: "Bundle | None",
) -> "list[WindowLosses]":
    import numpy as np

    from mlops_assets.ml.loss_comparison import WindowLosses, row_blocks, row_losses
    from mlops_assets.ml.service_comparison import CHAMPION, PREVIOUS, RECALIBRATED
    from mlops_assets.schema.problem import label_array

    problem, squared = inputs.solution.problem, inputs.solution.training.metric != "mean_absolute_error"
    labels = label_array(rows.column(inputs.solution.spine.label), problem)
    if problem == "multiclass_classification":
        positions = {name: place for place, name in enumerate(contract.classes)}
        labels = np.array([positions[label] for label in labels.tolist()])
    predictions = {CHAMPION: predictions_array(rows).astype(float)}
    if previous is not None:
        predictions[PREVIOUS] = predictions_array(previous.score(rows)).astype(float)
    unbent = predictions[CHAMPION] if plain is None else predictions_array(plain.score(rows)).astype(float)
    losses = {name: row_losses(problem, labels, values, squared=squared) for name, values in predictions.items()}
    days = rows.column(_DAY).to_numpy().astype("datetime64[D]").astype(int)
    starts = rows.column(STAGED_WINDOW).to_numpy().astype("datetime64[D]")
    known = rows.column(_KNOWN).to_numpy()
    own = rows.column(MODEL_VERSION).to_numpy() == version
    windows = []
    for start in np.unique(starts[own]):
        places = np.flatnonzero(own & (starts == start))
        of_window = {name: values[places] for name, values in losses.items()}
        bent = _recalibrated(inputs, start.astype(object), unbent, labels, known, starts, places)
        if bent is not None:
            of_window[RECALIBRATED] = row_losses(problem, labels[places], bent, squared=squared)
        windows.append(WindowLosses.from_rows(of_window, row_blocks(days[places], np.arange(len(places)))))
    return windows


def _recalibrated(
    inputs: SolutionInputs,
    start: date,
    predictions: "np.ndarray",
    labels: "np.ndarray",
    known: "np.ndarray",
    starts: "np.ndarray",
    places: "np.ndarray",
) -> "np.ndarray | None":
    """The predictions of a window, recalibrated by the labels known before its first day; None where these do not allow it."""
    import numpy as np

    from mlops_assets.ml.recalibration_methods import RECALIBRATION_WINDOWS
    from mlops_assets.ml.service_comparison import fit_recent

    earlier = np.unique(starts[starts < np.datetime64(start)])[-RECALIBRATION_WINDOWS:]
    before = np.isin(starts, earlier) & (known <= int(inputs.midnight(start).timestamp() * 1_000_000))
    fitted = fit_recent(inputs.solution.problem, predictions[before], labels[before])
    return None if fitted is None else fitted.apply(predictions[places])


def _difference(ours: "Contract", theirs: "Contract") -> str | None:
    """Return what `theirs` reads or answers otherwise than `ours`, so that it cannot score the same stored rows; None when nothing is."""
    kinds = {feature.name: feature.kind for feature in ours.features}
    others = [feature.name for feature in theirs.features if kinds.get(feature.name) != feature.kind]
    derived = {feature.name: feature.expression for feature in ours.derived_features}
    others += [feature.name for feature in theirs.derived_features if derived.get(feature.name) != feature.expression]
    read: Mapping[str, int] = {view.name: view.version for view in ours.feature_views}
    others += [f"{view.name} version {view.version}" for view in theirs.feature_views if read.get(view.name) != view.version]
    if ours.classes != theirs.classes:
        others.append("other classes")
    return ", ".join(dict.fromkeys(others)) or None
