"""Evidence of checks as people read it."""

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.ml.bootstrap import Interval
from mlops_assets.stages.evidence import evidence_table, format_interval, format_value, interval_bounds, plottable_number


@settings(max_examples=50)
@given(st.floats(min_value=1e-3, max_value=1e6))
def test_a_value_is_told_to_three_digits_at_least(value: float) -> None:
    assert float(format_value(value).replace(",", "")) == pytest.approx(value, rel=5e-3)
    assert len(format_value(value)) <= 8


def test_what_is_not_defined_is_said_so() -> None:
    assert format_value(None) == "not defined"
    assert format_interval(None) == ""
    assert plottable_number(None).value is None
    assert interval_bounds(None).value is None


def test_an_interval_stands_in_brackets_and_as_its_ends() -> None:
    interval = Interval(0.681, 0.707)
    assert format_interval(interval) == " [0.681, 0.707]"
    assert interval_bounds(interval).value == [0.681, 0.707]
    assert plottable_number(0.694).value == 0.694


def test_a_table_knows_the_types_of_its_columns() -> None:
    records = [dg.TableRecord({"feature": "a", "share": 0.5}), dg.TableRecord({"feature": "b", "share": 0.25})]
    shown_table = evidence_table(records, {"share": "float"})
    assert {column.name: column.type for column in shown_table.schema.columns} == {"feature": "string", "share": "float"}
    assert evidence_table([], {"share": "float"}).records == []
