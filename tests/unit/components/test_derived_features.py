"""Expressions of derived features: what is refused when the YAML is loaded, and that what is accepted is computed alike everywhere."""

import duckdb
import pytest

from mlops_assets.components.derived_features import check_derived
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.serving.derived import with_derived

COLUMNS = {"distance": "integer", "place": "varchar", "left_at": "timestamptz", "two words": "double"}
PLACE = ("features", 1, "derived", "x")


def refusal(expression: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_derived(expression, columns=COLUMNS, path=PLACE)
    assert caught.value.path == PLACE
    return caught.value.message


@pytest.mark.parametrize(
    "expression",
    [
        "distance > 1000",
        "CASE WHEN place = 'JFK' THEN 1 ELSE 0 END",
        "nullif(distance, 0) / 2.5",
        "upper(place) || '--;'",
        "hour(left_at)",
        '"two words" + 1',
        "CAST(distance AS DECIMAL(10, 2))",
        "coalesce(distance, 0) BETWEEN 1 AND 5",
        "'(' || place",
    ],
)
def test_an_accepted_expression_can_be_computed(expression: str) -> None:
    check_derived(expression, columns=COLUMNS, path=PLACE)
    row = "SELECT 5::INTEGER AS distance, 'JFK' AS place, TIMESTAMPTZ '2024-01-01 00:00:00Z' AS left_at, 0.5::DOUBLE AS \"two words\""
    assert duckdb.sql(f"SELECT x IS NOT NULL FROM ({with_derived(row, {'x': expression})})").fetchall() == [(True,)]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(SELECT max(distance) FROM raw.flights)", "a subquery has no place"),
        ("distance IN (SELECT 1)", "a subquery has no place"),
        ("row_number() OVER ()", "a window function has no place"),
        ("distance + ?", "a parameter has no place"),
        ("COLUMNS(*)", "a star has no place"),
        ("sum(distance)", "'sum' is no deterministic scalar function"),
        ("random()", "'random' is no deterministic scalar function"),
        ("now() > left_at", "'now' is no deterministic scalar function"),
        ("age(left_at)", "it reads the clock or the session"),
        ("getenv('HOME')", "it reads the clock or the session"),
        ("uper(place)", "did you mean"),
        ("nowhere + 1", "'nowhere' is no column of `request`; allowed: "),
        ("distanse + 1", "did you mean distance?"),
        ("flights.distance", "'flights.distance' is no column"),
        ("current_date", "is no"),
        ("distance, place", "cannot be computed"),
        ("1) FROM read_csv('/etc/passwd') --", "no"),
        ("1); DROP TABLE flights; SELECT (1", "no"),
        ("distance --", "cannot be computed"),
        ("distance +", "no SQL expression"),
        ("", "no SQL expression"),
        ("place + 1 +", "no SQL expression"),
        ("list_value(distance)", "which no model reads"),
        ("left_at", "TIMESTAMP WITH TIME ZONE, which no model reads"),
        ("hour(distance > 1)", "cannot be computed"),
    ],
)
def test_what_is_no_feature_of_one_request_is_refused(expression: str, words: str) -> None:
    assert words in refusal(expression)


def test_a_column_without_a_type_is_asked_for() -> None:
    with pytest.raises(ConfigurationError, match="declare the data_type of place in the dbt model of the spine"):
        check_derived("distance + 1", columns={"distance": "integer", "place": ""}, path=())


def test_no_request_column_is_needed_for_a_constant() -> None:
    with pytest.raises(ConfigurationError, match="'y' is no column of `request`"):
        check_derived("y", columns={}, path=())
