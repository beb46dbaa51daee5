"""Formats of a check's evidence: numbers and intervals for people, tables for the check's page."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from mlops_assets.ml.bootstrap import Interval
    from mlops_assets.ml.evaluation import Evaluation


def evidence_table(records: list[dg.TableRecord], types: Mapping[str, str]) -> dg.TableMetadataValue:
    """The records, with the types of columns that are no strings."""
    names = list(records[0].data) if records else []
    columns = [dg.TableColumn(name, types.get(name, "string")) for name in names]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns=columns))


def format_with_interval(result: "Evaluation", metric: str) -> str:
    """A metric with its interval: `0.694 [0.681, 0.707]`."""
    return f"{format_value(result.metrics[metric])}{format_interval(result.intervals.get(metric))}"


def format_value(value: float | None) -> str:
    """A value of at most four significant digits."""
    from mlops_assets.ml.charts import number_text

    return "not defined" if value is None else number_text(value)


def format_interval(interval: "Interval | None") -> str:
    """An interval with a space before it, or nothing."""
    return "" if interval is None else f" [{format_value(interval.low)}, {format_value(interval.high)}]"


def plottable_number(value: float | None) -> dg.MetadataValue:
    """A number that Dagster may plot over time, or null."""
    return dg.MetadataValue.null() if value is None else dg.MetadataValue.float(value)


def interval_bounds(interval: "Interval | None") -> dg.MetadataValue:
    """Both ends of an interval, or null."""
    return dg.MetadataValue.null() if interval is None else dg.MetadataValue.json([interval.low, interval.high])
