"""Models that are trained before some windows and predict the rows of these: the two sides of a model diff."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from mlops_assets.lake.sql import quote, sql_moment
from mlops_assets.operations.review.build_plan import ComparedWindows
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.exported_fit import feature_schema
from mlops_assets.training.fitting import default_estimator, fit_model
from mlops_assets.training.training_frame import training_frame

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mlops_assets.feature_store.point_in_time import Frame


@dataclass(frozen=True)
class JudgedModel:
    """The rows of the windows, in order of their key, with what a model that was trained before them predicts."""

    training_rows: int
    rows: "pa.Table"
    predictions: "np.ndarray"
    classes: tuple[int | str, ...]
    threshold: float | None


def judge_model(
    connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, windows: ComparedWindows, snapshot: int
) -> JudgedModel:
    """Train for the first day of `windows` on the lake as of `snapshot`, and predict the labelled rows since.

    Raises ValueError when there are no rows, or they cannot be fitted on.
    """
    import numpy as np

    from mlops_assets.ml.matrix import to_frame
    from mlops_assets.ml.pipeline import predict
    from mlops_assets.schema.problem import label_array

    solution = inputs.solution
    train = _table(
        connection, training_frame(inputs, windows.first, snapshot), [solution.spine.prediction_time, solution.spine.key]
    )
    rows = _table(connection, _judged_frame(inputs, windows, snapshot), [solution.spine.key])
    for table, place in ((train, "before"), (rows, "since")):
        if not table.num_rows:
            raise ValueError(f"there is no labelled row {place} {windows.first}")
    schema = feature_schema(inputs, train)
    fitted = fit_model(inputs, schema, train, default_estimator(inputs))
    classes: tuple[int | str, ...] = ()
    if solution.problem != "regression":
        classes = tuple(np.unique(label_array(train.column(solution.spine.label), solution.problem)).tolist())
    predictions = predict(fitted.pipeline, to_frame(rows, schema), solution.problem)
    return JudgedModel(train.num_rows, rows, predictions, classes, fitted.threshold)


def _judged_frame(inputs: SolutionInputs, windows: ComparedWindows, snapshot: int) -> "Frame":
    spine, partition = inputs.solution.spine, quote(inputs.solution.partitions.column)
    condition = f"{inputs.is_labelled} AND {quote(spine.prediction_time)} >= {sql_moment(inputs.midnight(windows.first))}"
    condition += f" AND {partition} >= DATE '{windows.first}'"
    return inputs.frame(first=windows.first, end=windows.end, condition=condition, labelled=True, snapshot=snapshot)


def _table(connection: duckdb.DuckDBPyConnection, frame: "Frame", order: Sequence[str]) -> "pa.Table":
    import pyarrow as pa

    parts = [connection.execute(f"FROM ({part})").to_arrow_table() for part in frame.built(connection)]
    return pa.concat_tables(parts).sort_by([(name, "ascending") for name in order])


def common_rows(
    before: SolutionInputs, after: SolutionInputs, first: JudgedModel, second: JudgedModel
) -> tuple[JudgedModel, JudgedModel]:
    """Both with the rows that both have, row by row the same."""
    import numpy as np

    former, present = (
        judged.rows.column(inputs.solution.spine.key).to_numpy(zero_copy_only=False)
        for inputs, judged in ((before, first), (after, second))
    )
    _, *positions = np.intersect1d(former, present, assume_unique=True, return_indices=True)
    taken = (
        JudgedModel(judged.training_rows, judged.rows.take(rows), judged.predictions[rows], judged.classes, judged.threshold)
        for judged, rows in zip((first, second), positions, strict=True)
    )
    return next(taken), next(taken)
