"""Losses of probes in a window: small models, one fitted as of the window, one as of the version in service, on what was known then.

They tell whether newer history helps, see `ml/training_forecast.py`. The rows are those of the version's training dataset and those that were
predicted since, with the features that were stored with the predictions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb

from mlops_assets.core.keys import TRAINING_DATASET, TRAINING_DATE
from mlops_assets.lake.sql import literal, quote
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.ml.history import History
from mlops_assets.monitoring.compared_losses import labelled_predictions
from mlops_assets.schema.column_names import SPLIT
from mlops_assets.schema.duration import add_duration, maximum_days
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.labelled_stream import solution_models

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.loss_comparison import WindowLosses
    from mlops_assets.serving.contract import Contract

_MOST_ROWS = 20_000
_FEWEST_ROWS = 200


@dataclass(frozen=True)
class ProbeLosses:
    """The losses of a window, each divided by the days between the probes, or why there are none."""

    losses: "WindowLosses | None"
    obstacle: str | None = None


def measure_probes(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    contract: "Contract",
    *,
    trained_for: date,
    window: date,
    moment: datetime,
) -> ProbeLosses:
    """Return the losses in the newest window up to `window` whose labels have come by `moment`.

    `trained_for` is the training date of the fit in service.
    """
    import numpy as np

    from mlops_assets.ml.loss_comparison import WindowLosses, row_blocks
    from mlops_assets.ml.training_forecast import OLDER, YOUNGER

    training, delay = inputs.solution.training, inputs.solution.monitoring.performance.label_delay
    periods = [inputs.windows.time_window_for_partition_key(key) for key in inputs.windows.get_partition_keys()]
    known = [
        (start, end)
        for start, end in ((period.start.date(), period.end.date()) for period in periods)
        if start <= window and inputs.midnight(add_duration(end, delay)) <= moment
    ]
    if not known:
        return ProbeLosses(None)
    start, end = known[-1]
    older = min(trained_for, start - timedelta(days=maximum_days(training.holdout)))
    rows = _rows(connection, inputs, contract, trained_for=trained_for, window=start, moment=moment)
    if rows is None:
        return ProbeLosses(None)
    models = solution_models(inputs, rows, folder=None, identity="")
    stream = models.stream
    places = np.flatnonzero((stream.days >= np.datetime64(start)) & (stream.days < np.datetime64(end)))
    if not len(places) or ((stream.known <= np.datetime64(older)) & (stream.days < np.datetime64(older))).sum() < _FEWEST_ROWS:
        return ProbeLosses(None)
    history = History(half_life=max(maximum_days(training.window) // 3, 1))
    try:
        losses = {name: models.probe(history, day).losses[places] for name, day in ((YOUNGER, start), (OLDER, older))}
    except ValueError as error:
        return ProbeLosses(None, f"no probe could be fitted: {error}")
    days = (start - older).days
    blocks = row_blocks(stream.days[places].astype(int), places)
    return ProbeLosses(WindowLosses.from_rows({name: values / days for name, values in losses.items()}, blocks))


def _rows(
    connection: duckdb.DuckDBPyConnection,
    inputs: SolutionInputs,
    contract: "Contract",
    *,
    trained_for: date,
    window: date,
    moment: datetime,
) -> "pa.Table | None":
    """A sample of the training dataset for `trained_for` and what was predicted since up to `window`, in order of time; None without either."""
    spine, dataset = inputs.solution.spine, inputs.table(TRAINING_DATASET)
    features = list(inputs.features)
    if not table_exists(connection, dataset) or set(features) - set(contract.feature_schema.names):
        return None
    weight = inputs.solution.training.sample_weight
    if set(features) - set(column_types(connection, f"lake.{dataset}")) or weight is not None:
        return None
    predicted = labelled_predictions(
        connection, inputs, contract, None, contract.feature_schema.names, window=window, moment=moment
    )
    if predicted is None or not predicted.num_rows:
        return None
    names = ", ".join(quote(name) for name in dict.fromkeys((*features, spine.prediction_time, spine.label_time, spine.label)))
    connection.register("predicted_rows", predicted)
    try:
        return connection.execute(
            f"(SELECT {names} FROM lake.{dataset} WHERE {TRAINING_DATE} = DATE {literal(trained_for.isoformat())} "
            f"AND {SPLIT} <> 'earlier' "
            f"ORDER BY hash({quote(spine.key)}) LIMIT {_MOST_ROWS}) "
            f"UNION ALL BY NAME (SELECT {names} FROM predicted_rows "
            f"WHERE {quote(spine.prediction_time)} >= TIMESTAMPTZ '{inputs.midnight(trained_for).isoformat()}') "
            f"ORDER BY {quote(spine.prediction_time)}, {names}"
        ).to_arrow_table()
    finally:
        connection.unregister("predicted_rows")


def losses_as_text(losses: "WindowLosses | None") -> str | None:
    """The losses as JSON, as they are kept with a decision."""
    if losses is None:
        return None
    return json.dumps({"rows": losses.rows.tolist(), **{name: sums.tolist() for name, sums in losses.sums.items()}})


def losses_from_text(text: str) -> "WindowLosses":
    """The losses that `losses_as_text` wrote."""
    import numpy as np

    from mlops_assets.ml.loss_comparison import WindowLosses

    content: Mapping[str, list[float]] = json.loads(text)
    return WindowLosses(
        sums={name: np.array(values) for name, values in content.items() if name != "rows"}, rows=np.array(content["rows"])
    )
