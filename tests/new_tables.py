"""Proposals of `mlops new` for tables that a test writes. Helpers, no tests."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import yaml

from mlops_assets.lake.sql import quote
from mlops_assets.operations.new_solution.answers import Answers
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.operations.new_solution.proposal import Proposal, Proposer, open_scratch_database
from mlops_assets.operations.new_solution.reading import read_source
from mlops_assets.schema.solution import Solution
from mlops_assets.schema.source import RawTable, Source
from mlops_assets.sources.reader import PARSED, REASON, parse

FIRST_DAY = date(2026, 1, 1)


@contextmanager
def scratch_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """The database in which `mlops new` looks at a table."""
    with tempfile.TemporaryDirectory() as folder, open_scratch_database(Path(folder)) as connection:
        yield connection


def propose(file: Path, name: str = "things", **answers: Any) -> Proposal:
    """The proposal for a file."""
    with scratch_database() as connection:
        return Proposer(connection, Origin.of_file(str(file)), name, FIRST_DAY).propose(Answers(**answers), file.name)


def propose_query(sql: str, url_variable: str, **answers: Any) -> Proposal:
    """The proposal for the rows of a query on a Postgres."""
    with scratch_database() as connection:
        return Proposer(connection, Origin.of_query(sql, url_variable), "things", FIRST_DAY).propose(Answers(**answers), "")


def read_text(
    folder: Path, text: str | bytes, *, suffix: str = ".csv", **answers: Any
) -> tuple[RawTable, list[tuple[Any, ...]], list[str]]:
    """The raw table by which a file with this content is read, the rows that the platform loads by it, and what a person is asked."""
    file = folder / f"things{suffix}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    origin = Origin.of_file(str(file))
    with scratch_database() as connection:
        reading = read_source(connection, origin, "things", Answers(**{"label": "label", **answers}))
        table = origin.table(reading.columns, options=reading.options, null_strings=reading.null_strings)
        rows = load(connection, table, folder)
    return table, rows, [decision.field for decision in reading.decisions if decision.question]


def load(connection: duckdb.DuckDBPyConnection, table: RawTable, folder: Path) -> list[tuple[Any, ...]]:
    """The rows as the platform loads them. Fails for a row that it rejects."""
    with parse(connection, table, directory=folder, window=None):
        names = ", ".join(quote(name) for name in table.columns)
        rows = connection.execute(f"SELECT {REASON}, {names} FROM {PARSED}").fetchall()
    assert [row[0] for row in rows] == [None] * len(rows)
    return [row[1:] for row in rows]


def propose_text(folder: Path, text: str | bytes, *, suffix: str = ".csv", name: str = "things", **answers: Any) -> Proposal:
    """The proposal for a file with this content in `folder`."""
    file = folder / f"things{suffix}"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return propose(file, name, **answers)


def propose_rows(folder: Path, rows: list[dict[str, Any]], **answers: Any) -> Proposal:
    """The proposal for a file of JSON lines with these rows."""
    return propose_text(folder, "\n".join(map(json.dumps, rows)), suffix=".jsonl", **answers)


def raw_table(proposal: Proposal) -> RawTable:
    """The raw table of the written source."""
    [table] = Source.model_validate(yaml.safe_load(proposal.source_yaml)["attributes"]).tables.values()
    return table


def solution(proposal: Proposal) -> Solution:
    """The written solution."""
    return Solution.model_validate(yaml.safe_load(proposal.solution_yaml)["attributes"])


def types(proposal: Proposal) -> dict[str, str]:
    """Column of the raw table -> type."""
    return {name: column.type for name, column in raw_table(proposal).columns.items()}


def roles(proposal: Proposal, role: str) -> list[str]:
    """The columns with a role."""
    return [name for name, of_column in proposal.roles.items() if of_column.name == role]


def decided(proposal: Proposal) -> dict[str, str]:
    """What was decided, by the field of the answers."""
    return {decision.field: decision.value for decision in proposal.decisions}


def open_fields(proposal: Proposal) -> list[str]:
    """What a person would be asked."""
    return [decision.field for decision in proposal.decisions if decision.question]
