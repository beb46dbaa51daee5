"""`attribution_report`: what the model leans on in a window, compared with the hold-out. No label is needed. One partition a window."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlops_assets.core.prediction_columns import predictions_array
from mlops_assets.lake.sql import quote
from mlops_assets.monitoring.measures import Measure, MonitoredWindow, monitor

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_BACKGROUND_ROWS = 200


@monitor("No feature moves the predictions much more or less than on the hold-out, beyond the differences between days.")
def attribution(window: MonitoredWindow) -> Iterator[Measure]:
    """The change of the share of each feature in what moves the predictions."""
    from mlops_assets.ml.attribution import compare_attributions
    from mlops_assets.ml.contributions import absolute_contributions

    solution, bundle = window.inputs.solution, window.load_bundle()
    section, partition = solution.monitoring.attribution, solution.partitions.column
    assert section is not None
    names = list(bundle.contract.feature_schema.names)
    spine = solution.spine
    order = f"hash({quote(spine.key)}), {quote(spine.key)}, {quote(spine.prediction_time)}"
    predicted = window.connection.execute(f"FROM {window.rows} ORDER BY {order} LIMIT {section.rows}").to_arrow_table()
    # It is stored in a random order.
    holdout = window.connection.execute(f"FROM {window.reference_rows} LIMIT {2 * section.rows}").to_arrow_table()
    background = holdout.slice(0, _BACKGROUND_ROWS).select(names)

    def predict(rows: "pa.Table") -> "np.ndarray":
        return predictions_array(bundle.score(rows))

    seed = solution.training.seed
    sizes, usual = (absolute_contributions(predict, rows.select(names), background, seed=seed) for rows in (predicted, holdout))
    days = predicted.column(partition).to_numpy().astype("datetime64[D]").astype(int)
    for shift in compare_attributions(sizes, days, usual, features=names, false_alarms=solution.monitoring.drift.false_alarms):
        limit = max(section.effect, shift.usual_difference)
        yield Measure(subject=shift.feature, value=shift.difference, limit=limit, sentence=shift.words)
