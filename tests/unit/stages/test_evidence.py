"""Evidence of checks as people read it."""

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.bootstrap import Interval
from mlops_assets.stages.evidence import bounds, number, shown, shown_interval, table


@settings(max_examples=50)
@given(st.floats(min_value=1e-3, max_value=1e6))
def test_a_value_is_told_to_three_digits_at_least(value: float) -> None:
    assert float(shown(value).replace(",", "")) == pytest.approx(value, rel=5e-3)
    assert len(shown(value)) <= 8


def test_what_is_not_defined_is_said_so() -> None:
    assert shown(None) == "not defined"
    assert shown_interval(None) == ""
    assert number(None).value is None
    assert bounds(None).value is None


def test_an_interval_stands_in_brackets_and_as_its_ends() -> None:
    interval = Interval(0.681, 0.707)
    assert shown_interval(interval) == " [0.681, 0.707]"
    assert bounds(interval).value == [0.681, 0.707]
    assert number(0.694).value == 0.694


def test_a_table_knows_the_types_of_its_columns() -> None:
    records = [dg.TableRecord({"feature": "a", "share": 0.5}), dg.TableRecord({"feature": "b", "share": 0.25})]
    shown_table = table(records, {"share": "float"})
    assert {column.name: column.type for column in shown_table.schema.columns} == {"feature": "string", "share": "float"}
    assert table([], {"share": "float"}).records == []
