"""The fields of the two YAML files, from what was inferred of a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from mlops_assets.operations.new_solution.answers import Answers
from mlops_assets.operations.new_solution.label import Label
from mlops_assets.operations.new_solution.moments import Moments
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.reading import SourceReading
from mlops_assets.operations.new_solution.table_calendar import Calendar
from mlops_assets.operations.new_solution.table_facts import TableFacts
from mlops_assets.schema.first_choices import first_choices
from mlops_assets.schema.gates_section import DatasetChecks
from mlops_assets.schema.training_section import Training

_WINDOWS = {"daily": None, "weekly": None, "monthly": "monthly", "yearly": "yearly"}
"""Monitoring windows where a week, the default, is shorter than a partition."""


@dataclass(frozen=True, kw_only=True)
class SolutionParts:
    """What was inferred of a table, part by part. `key` are the columns of the table, `key_column` the column of the spine with the
    expression that makes it of several; `first_day` is the first partition of a table without time.
    """

    name: str
    table: str
    facts: TableFacts
    label: Label
    moments: Moments | None
    calendar: Calendar | None
    key: tuple[str, ...]
    key_column: tuple[str, str | None] | None
    features: tuple[str, ...]
    keeps_strong_features: bool
    first_day: date


def source_fields(
    parts: SolutionParts, reading: SourceReading, origin: Origin, file_label: str
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The columns of the raw table, and its other fields."""
    columns = {name: dict(column) for name, column in reading.columns.items()}
    calendar, moments = parts.calendar, parts.moments
    required = list(parts.key)
    fields: dict[str, Any] = {"description": f"Rows of {file_label}."}
    if origin.query:
        fields = {"description": f"Rows of a query on {origin.label}.", "query": dict(origin.query)}
    else:
        fields["files"] = [file_label]
        is_told_by_name = file_label.partition("?")[0].lower().endswith(f".{origin.format}") or f".{origin.format}." in file_label
        fields["format"] = None if is_told_by_name else origin.format
    fields |= {"options": dict(reading.options), "null_strings": list(reading.null_strings), "key": list(parts.key)}
    if calendar is not None and moments is not None:
        required += [moments.time, calendar.column]
        if calendar.expression is not None:
            columns[calendar.column] = {"type": "date", "expression": calendar.expression}
        fields["partitions"] = _partitions(calendar, is_open=origin.query is not None)
        fields["minimum_rows"] = 0 if calendar.has_gaps else None
    awaited = [parts.label.of] if parts.label.expression else []
    awaited += [moments.known_at] if moments and moments.known_at and moments.label_time != moments.known_at else []
    if awaited := [name for name in awaited if parts.facts.columns[name].filled < parts.facts.rows]:
        fields["comparison"] = {"awaited": awaited}
    for name in dict.fromkeys(required):
        column = columns[name]
        expression = {"expression": column.pop("expression")} if "expression" in column else {}
        columns[name] = {**column, "required": True, **expression}
    return columns, fields


def _partitions(calendar: Calendar, *, is_open: bool) -> dict[str, Any]:
    """The partitions, which go on where rows will come."""
    partitions: dict[str, Any] = {"column": calendar.column, "start": calendar.start}
    if not is_open:
        partitions["end"] = calendar.end
    if calendar.cadence != "daily":
        partitions["cadence"] = calendar.cadence
    if calendar.time_zone != "UTC":
        partitions["time_zone"] = calendar.time_zone
    return partitions


def solution_attributes(parts: SolutionParts, answers: Answers, *, is_open: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The attributes of the solution, and what a person should know about them."""
    labelled = parts.facts.columns[parts.label.of].filled
    choices = first_choices(parts.label.problem, labelled)
    estimator: dict[str, Any] = {"type": choices.estimator}
    if choices.parameters:
        estimator["parameters"] = choices.parameters
    training: dict[str, Any] = {"metric": choices.metric, "estimator": estimator}
    attributes: dict[str, Any] = {
        "name": parts.name,
        "description": answers.description or f"Prediction of {parts.label.of} in {parts.name}.",
        "owners": [answers.owner],
        "problem": parts.label.problem,
    }
    calendar = parts.calendar
    if calendar is not None:
        attributes["partitions"] = _partitions(calendar, is_open=is_open)
        training = {"window": calendar.window, "holdout": calendar.holdout, **training}
    else:
        attributes["partitions"] = {"start": parts.first_day}
    attributes |= {"spine": _spine(parts), "features": [{"request": list(parts.features)}], "training": training}
    checks, notes = _checks(parts, labelled)
    if checks:
        attributes["checks"] = checks
    if calendar is not None and (window := _WINDOWS[calendar.cadence]):
        attributes["monitoring"] = {"window": window}
    rare = [f"{value} ({count})" for value, count in parts.label.values if count < 10]
    if rare:
        notes.append(f"Classes of few rows: {', '.join(rare[:5])}. A model hardly learns them.")
    return attributes, tuple(notes)


def _spine(parts: SolutionParts) -> dict[str, Any]:
    spine: dict[str, Any] = {"table": parts.table}
    expressions: dict[str, str] = {}
    if parts.key_column is not None:
        column, expression = parts.key_column
        spine["key"] = column
        expressions |= {column: expression} if expression else {}
    if parts.moments is not None:
        spine["prediction_time"] = parts.moments.prediction_time
    spine["label"] = parts.label.column
    if parts.moments is not None:
        spine["label_time"] = parts.moments.label_time
        expressions |= parts.moments.expressions
    if parts.label.expression:
        expressions[parts.label.column] = parts.label.expression
    return {**spine, **({"expressions": expressions} if expressions else {})}


def _checks(parts: SolutionParts, labelled: int) -> tuple[Mapping[str, Any], list[str]]:
    """Bounds of the training dataset that this table would miss by default, each with a note."""
    checks: dict[str, Any] = {}
    notes: list[str] = []
    expected = int(labelled * (1 - Training.model_fields["holdout_share"].default))
    if parts.calendar is not None:
        # What is predicted and what is held out are no training rows.
        window, holdout = int(parts.calendar.window[:-1]), int(parts.calendar.holdout[:-1])
        expected = int(labelled * (window - holdout) / (window + holdout))
    usual = DatasetChecks().least_rows(len(parts.features))
    if expected < 1.1 * usual:
        checks["minimum_rows"] = max(1, int(expected * 0.8))
        notes.append(
            f"About {expected:,} training rows for {len(parts.features)} features are few: {usual:,} are usual. "
            "checks.minimum_rows is lowered; the gates decide whether the model is good enough."
        )
    if parts.keeps_strong_features:
        checks["maximum_label_correlation"] = 1.0
    return checks, notes
