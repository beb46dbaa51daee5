"""A challenger beside the champion on the same requests, from the predictions that both made: what `mlops compare` shows."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.core.keys import SHADOW_PREDICTIONS, stage_table
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.predictions.all_predictions import all_predictions
from mlops_assets.schema.column_names import PREDICTION_ID, internal

_SUFFIX = ":challenger"
"""What `build_prediction_id` ends a challenger's prediction id with."""

_ANSWERED = internal("answered")


@dataclass(frozen=True)
class PairedPredictions:
    """The predictions of a champion (`a`) and a challenger (`b`) for the same requests, as a `relation` of SQL, with their `columns`.

    `is_answered_by_challenger` is SQL that is true where the challenger's was the answer.
    """

    relation: str
    columns: Collection[str]
    is_answered_by_challenger: str = f"b.{_ANSWERED}"


def pair_predictions(connection: duckdb.DuckDBPyConnection, solution: str) -> PairedPredictions:
    """Return the pairs that are in the lake. Raises StackError when no challenger has predicted anything yet."""
    predicted, shadow = all_predictions(connection, solution), stage_table(solution, SHADOW_PREDICTIONS)
    if predicted is None or not table_exists(connection, shadow):
        raise _nothing(solution)
    rows = " UNION ALL BY NAME ".join(
        f"(SELECT *, {answered} AS {_ANSWERED} FROM {rows_of})"
        for rows_of, answered in ((predicted, "true"), (f"lake.{shadow}", "false"))
    )
    return PairedPredictions(
        f"({rows}) a JOIN ({rows}) b ON b.{PREDICTION_ID} = a.{PREDICTION_ID} || '{_SUFFIX}'",
        columns=column_types(connection, predicted),
    )


def compare_versions(connection: duckdb.DuckDBPyConnection, solution: str) -> list[dict[str, Any]]:
    """One entry a pair of versions: `champion`, `challenger`, `requests`, `answered_by_challenger`, means, differences.

    `different_labels` is the share of requests that the two decide differently; None in a regression. `connection` is to the lake.
    Raises StackError when no challenger has predicted anything yet.
    """
    pairs = pair_predictions(connection, solution)
    output, labels = "score", "avg(CAST(a.predicted_label IS DISTINCT FROM b.predicted_label AS INTEGER))"
    if "value" in pairs.columns:
        output, labels = "value", "NULL"
    compared = connection.execute(
        f"""
        SELECT a.model_version AS champion, b.model_version AS challenger, count(*) AS requests,
            count(*) FILTER ({pairs.is_answered_by_challenger}) AS answered_by_challenger,
            avg(a.{output}) AS champion_mean, avg(b.{output}) AS challenger_mean,
            avg(abs(a.{output} - b.{output})) AS mean_difference, max(abs(a.{output} - b.{output})) AS largest_difference,
            {labels} AS different_labels
        FROM {pairs.relation}
        GROUP BY ALL ORDER BY ALL
        """
    )
    names = [column[0] for column in compared.description or []]
    entries = [dict(zip(names, row, strict=True)) for row in compared.fetchall()]
    if not entries:
        raise _nothing(solution)
    return entries


def _nothing(solution: str) -> StackError:
    return StackError(
        f"No challenger of {solution} has predicted anything that is in the lake.",
        remedy=f"Set `serving: {{shadow: true}}` in its YAML, `mlops reload`, ask the server, and materialize {solution}/prediction_log.",
    )
