"""Records of servers as rows: every value as it was, and a record that cannot be a row named with the reason."""

from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lake_in_folder import lake_in_folder
from late_inputs import INPUTS
from prediction_records import prediction_record

from mlops_assets.online_store.values import Flag, ViewValues
from mlops_assets.predictions.prediction_records import RecordRows
from mlops_assets.serving.prediction_record import Outputs, PredictionRecord

MOMENT = datetime(2020, 3, 4, 12, tzinfo=UTC)


def record(number: int, **changes: object) -> PredictionRecord:
    usual = {
        "key": number,
        "partition": date(2020, 3, 4),
        "prediction_time": MOMENT,
        "served_at": MOMENT,
        "entity": {"place": "A"},
        "features": {"distance": 1400, "waiting": 1.5, "open": True},
        "outputs": Outputs(score=0.25, predicted_label=0),
        "views": {"load": ViewValues(version=1, flag=Flag.OK, snapshot=12, event_timestamp=MOMENT)},
    }
    return prediction_record(number, **(usual | changes))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    connection = lake_in_folder(tmp_path_factory.mktemp("lake"))
    connection.execute(
        "CREATE SCHEMA late; CREATE SCHEMA features; "
        "CREATE TABLE late.spine (id BIGINT, day DATE, at_time TIMESTAMPTZ, place VARCHAR, distance INTEGER, was_late BIGINT, "
        "known_at TIMESTAMPTZ); "
        "CREATE TABLE features.load (place VARCHAR, moment TIMESTAMPTZ, day DATE, waiting DOUBLE, open BOOLEAN, _loaded_at TIMESTAMPTZ)"
    )
    return connection


def rows(lake: duckdb.DuckDBPyConnection, *records: PredictionRecord, columns: str) -> tuple[list[tuple], RecordRows]:
    staged = RecordRows(lake, INPUTS, table="late.prediction_log", records=records)
    return lake.execute(f"SELECT {columns} FROM ({staged.query}) ORDER BY id").fetchall(), staged


NUMBERS = st.none() | st.floats(allow_nan=False)


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(-(2**63), 2**63 - 1),
    NUMBERS,
    st.none() | st.booleans(),
    st.text().filter(lambda text: "\0" not in text),
    st.timedeltas(timedelta(days=-7000), timedelta(days=7000)),
)
def test_every_value_is_in_the_lake_as_it_was(
    lake: duckdb.DuckDBPyConnection, key: int, number: float | None, flag: bool | None, text: str, later: timedelta
) -> None:
    sent = record(
        1, key=key, features={"distance": 7, "waiting": number, "open": flag}, entity={"place": text}, served_at=MOMENT + later
    )
    [found], staged = rows(lake, sent, columns="id, distance, waiting, open, place, epoch_us(served_at)")
    assert found == (
        key,
        7,
        number,
        flag,
        text,
        int((MOMENT + later - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)),
    )
    assert staged.refused() == {}


def test_a_record_that_cannot_be_a_row_is_named_and_costs_no_other(lake: duckdb.DuckDBPyConnection) -> None:
    broken = record(2, features={"distance": "far", "waiting": 1.0, "open": True})
    found, staged = rows(lake, record(1), broken, record(3), columns="id")
    assert [key for (key,) in found] == [1, 3]
    [(identifier, reason)] = staged.refused().items()
    assert identifier == broken.prediction_id
    assert reason == "far is no INTEGER (distance)"


def test_features_of_another_version_are_named_and_left_out(lake: duckdb.DuckDBPyConnection) -> None:
    newer = record(1, features={"distance": 7, "brand_new": 1.0})
    [first, _], staged = rows(lake, newer, record(2), columns="id, distance, waiting")
    assert first == (1, 7, None)
    assert staged.unknown_features == ["brand_new"]


def test_probabilities_and_labels_keep_their_types(lake: duckdb.DuckDBPyConnection) -> None:
    outputs = Outputs(score=0.5, predicted_label="it's", probabilities=[0.25, 0.5, 0.25])
    [found], _ = rows(lake, record(1, outputs=outputs), columns="predicted_label, probabilities, typeof(score)")
    assert found == ("it's", [0.25, 0.5, 0.25], "FLOAT")
