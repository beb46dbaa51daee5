"""`RawTables`: names of columns that the lake could not hold are refused at their place."""

from typing import Any

import pytest

from mlops_assets.components.raw_tables import RawTables
from mlops_assets.schema.column_names import RESERVED, internal
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.source import Source

DAILY = {"column": "day", "start": "2024-01-01", "end": "2024-02-01"}


def refusal(columns: list[str], *, schedule: dict[str, str] | None = None) -> ConfigurationError:
    table: dict[str, Any] = {
        "description": "Rows.",
        "files": ["rows.csv"],
        "format": "csv",
        "columns": {"day": {"type": "date"}, **{name: {"type": "varchar"} for name in columns}},
        "partitions": DAILY,
    }
    source = Source.model_validate({"owners": ["team:a"], "schedule": schedule, "tables": {"orders": table}})
    with pytest.raises(ConfigurationError) as caught:
        RawTables(source).check()
    return caught.value


def test_a_cron_expression_is_checked() -> None:
    error = refusal([], schedule={"cron": "at dawn", "time_zone": "Europe/Berlin"})
    assert error.path == ("schedule", "cron")
    assert "'at dawn' is no cron expression" in error.message


@pytest.mark.parametrize("name", [*sorted(RESERVED["raw"]), internal("row"), internal("row").upper()])
@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_a_name_of_the_platform_is_refused_whatever_its_case(name: str, spelled: Any) -> None:
    error = refusal([spelled(name)])
    assert error.path == ("tables", "orders", "columns", spelled(name))
    assert "raw table orders" in error.message


def test_two_columns_that_are_one_to_the_lake_are_refused() -> None:
    error = refusal(["Price", "price"])
    assert error.path == ("tables", "orders", "columns", "price")
    assert "Price, price are one name to the lake" in error.message
