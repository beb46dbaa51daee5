"""The proposal for a table: how it is read, what each column is for, and the two files; all of it in order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import yaml
from pydantic import BaseModel, ValidationError

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import DUCKDB_EXTENSION_DIRECTORY
from mlops_assets.lake.lake import MEMORY_LIMIT
from mlops_assets.operations.new_solution.answers import NONE, Answers, Decision
from mlops_assets.operations.new_solution.existing_table import answers_for, read_declared, require_values
from mlops_assets.operations.new_solution.key import infer_key, key_column
from mlops_assets.operations.new_solution.label import infer_label
from mlops_assets.operations.new_solution.moments import Moments, check_zone, infer_moments, infer_time
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.reading import SourceReading, read_source
from mlops_assets.operations.new_solution.roles import Role, infer_roles
from mlops_assets.operations.new_solution.table_calendar import Calendar, declared_calendar, infer_calendar
from mlops_assets.operations.new_solution.table_facts import TableFacts
from mlops_assets.operations.new_solution.time_formats import check_date_format
from mlops_assets.operations.new_solution.yaml_fields import SolutionParts, solution_attributes, source_fields
from mlops_assets.operations.new_solution.yaml_files import solution_text, source_text
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import Source


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What was inferred of a table: the decisions, the role of each column of the raw table, and the texts of the two files."""

    name: str
    facts: TableFacts
    columns: Mapping[str, Mapping[str, Any]]
    type_reasons: Mapping[str, str]
    roles: Mapping[str, Role]
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...]
    source_yaml: str
    solution_yaml: str


def open_scratch_database(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database in memory, in UTC, that reads sources as the platform does; what does not fit into memory goes to `folder`."""
    connection = duckdb.connect(
        config={
            "extension_directory": str(DUCKDB_EXTENSION_DIRECTORY),
            "autoinstall_known_extensions": False,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(folder),
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


class Proposer:
    """Proposes a solution `name` for the rows of `origin`. The rows are read again only where an answer changes how.

    `first_day` is the first partition of a table without time. `solutions` are those of the project.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        origin: Origin,
        name: str,
        first_day: date,
        solutions: Collection[Solution] = (),
    ):
        self._connection, self._origin, self._name, self._first_day = connection, origin, name, first_day
        self._solutions = solutions
        self._readings: dict[Answers, SourceReading] = {}

    def propose(self, answers: Answers, file_label: str) -> Proposal:
        """The proposal with these answers. `file_label` is how the source names its file.

        Raises StackError for an answer that cannot be, and for a table from which nothing can be learned; SourceError for a source that
        cannot be read.
        """
        check_zone(answers.time_zone)
        check_date_format(self._connection, answers.date_format)
        reading = self._read(answers)
        answers = _in_lake(answers, reading, self._origin)
        if self._origin.declared is not None:
            answers = answers_for(self._origin.declared, answers)
        facts = reading.facts
        label, decisions = infer_label(self._connection, facts, answers.label, answers)
        decisions = [*reading.decisions, *decisions]
        # A column that is only read to compute another one is none of the data.
        helpers = [name for name in reading.columns if name not in reading.names.values()]
        time, decision = infer_time(facts, label.of, helpers, reading.reasons, answers)
        decisions += decision
        fixed = {label.of: Role("label", f"{label.problem.replace('_', ' ')}.")}
        moments: Moments | None = None
        calendar: Calendar | None = None
        fixed |= {name: Role("left out", "As it is written; another column is computed from it.") for name in helpers}
        declared = self._origin.declared
        if time is not None:
            decisions += self._zone(time, reading, answers)
            moments, decision = infer_moments(self._connection, facts, time, label.of, answers)
            decisions += decision
            if declared is not None and declared.table.partitions is not None:
                calendar, decision = declared_calendar(self._connection, declared.table.partitions, file=declared.file)
            else:
                calendar, decision = infer_calendar(self._connection, facts, moments, answers)
            decisions += decision
            fixed[time] = Role("time", "The moment of the prediction.")
            if moments.known_at:
                fixed[moments.known_at] = Role("known at", "When the label became known.")
        key, of_key = infer_key(self._connection, facts, {*fixed} - {str(time)}, answers)
        decisions.append(of_key)
        fixed |= {name: Role("key", of_key.reason) for name in key if name not in fixed}
        roles, doubts = infer_roles(self._connection, facts, label, fixed, reading.nested, reading.later, answers)
        decisions += doubts
        parts = SolutionParts(
            name=self._name,
            table=declared.name if declared else self._name,
            facts=facts,
            label=label,
            moments=moments,
            calendar=calendar,
            key=key,
            key_column=key_column(key, facts) if key else None,
            features=tuple(name for name, role in roles.items() if role.name == "feature"),
            keeps_strong_features=bool(answers.feature) or answers.leave_out == (NONE,),
            first_day=self._first_day,
        )
        comment = f"Written by `mlops new` from {self._origin.path.name if self._origin.path else self._origin.label}."
        columns, source = reading.columns, ""
        if declared is None:
            columns, fields = source_fields(parts, reading, self._origin, file_label)
            source = source_text(owner=answers.owner, table=self._name, comment=comment, fields=fields, columns=columns)
            _require_valid(Source, source)
        else:
            require_values(declared, (*key, *([time] if time else [])))
        attributes, notes = solution_attributes(parts, answers, is_open=self._origin.is_open)
        solution = solution_text(comment=comment, attributes=attributes)
        _require_valid(Solution, solution)
        return Proposal(
            name=self._name,
            facts=facts,
            columns=columns,
            type_reasons=reading.reasons,
            roles=roles,
            decisions=tuple(decisions),
            notes=(*reading.notes, *notes),
            source_yaml=source,
            solution_yaml=solution,
        )

    def _read(self, answers: Answers) -> SourceReading:
        of_reading = replace(
            Answers(label=answers.label),
            **{field: getattr(answers, field) for field in _OF_READING},
        )
        if of_reading not in self._readings:
            self._readings = {of_reading: self._reading(of_reading)}
        return self._readings[of_reading]

    def _reading(self, answers: Answers) -> SourceReading:
        if self._origin.declared is not None:
            return read_declared(self._connection, self._origin.declared, self._solutions)
        return read_source(self._connection, self._origin, self._name, answers)

    def _zone(self, time: str, reading: SourceReading, answers: Answers) -> list[Decision]:
        if answers.time_zone is not None:
            return [Decision(field="time_zone", value=answers.time_zone, reason="Given.")]
        if time not in reading.without_offset:
            return [Decision(field="time_zone", value="UTC", reason="Days begin at midnight of UTC.")]
        return [
            Decision(
                field="time_zone",
                value="UTC",
                reason=f"The times of {time} say no offset.",
                question="In which time zone are the times? (such as Europe/Berlin)",
            )
        ]


def _require_valid(model: type[BaseModel], text: str) -> None:
    """Raise StackError where an answer, such as the owner, makes the YAML `text` no `model`."""
    try:
        model.model_validate(yaml.safe_load(text)["attributes"])
    except ValidationError as error:
        problems = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise StackError(f"The answers make no valid file: {problems}", remedy="Correct the options: mlops new --help") from error


_OF_READING = (
    "time_zone",
    "delimiter",
    "quote",
    "escape",
    "skip",
    "encoding",
    "decimal",
    "thousands",
    "date_format",
    "names",
    "null",
)


def _in_lake(answers: Answers, reading: SourceReading, origin: Origin) -> Answers:
    """The answers with the names that columns have in the lake. Raises StackError for a column that is not there."""

    def named(name: str) -> str:
        if name in reading.names:
            return reading.names[name]
        if name in reading.facts.columns:
            return name
        if name in reading.repeated:
            raise StackError(f"Several columns are called {name!r}.", remedy="Give each a name of its own in the file.")
        hint = ""
        if origin.is_text_file:
            hint = "If the header is another line, or parted by another sign: --skip, --delimiter. "
        elif origin.format == "json" and reading.facts.rows == 1:
            hint = "The file is one object: write the rows as the elements of one array, or one object a line. "
        raise StackError(f"There is no column {name!r}.", remedy=f"{hint}Columns: {nearest(name, list(reading.names))}")

    def named_or_none(name: str | None) -> str | None:
        return name if name in (None, NONE) and name not in reading.names else named(str(name))

    return replace(
        answers,
        label=named(answers.label),
        time=named_or_none(answers.time),
        known_at=named_or_none(answers.known_at),
        key=answers.key if answers.key == (NONE,) else tuple(map(named, answers.key)),
        feature=tuple(map(named, answers.feature)),
        leave_out=answers.leave_out if answers.leave_out == (NONE,) else tuple(map(named, answers.leave_out)),
    )
