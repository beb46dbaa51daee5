"""The dbt models of a project on empty tables: whether their SQL runs, and gives the columns and types that their contracts state.

DuckDB binds each compiled query to tables without rows that have the declared columns, so that no lake, no data and no stack is needed.
"""

import re
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.feature_store.model_problems import ModelProblem
from mlops_assets.lake.schema_evolution import canonical_types
from mlops_assets.lake.sql import quote
from mlops_assets.schema.column_names import LOADED_AT, SOURCE, fold
from mlops_assets.schema.configuration_errors import nearest
from mlops_assets.schema.source import RawTable

Node = Mapping[str, Any]

_DATABASE = "memory"
"""The database of the profile that compiles the project, in which the models are."""
_AUDIT_TYPES = {SOURCE: "VARCHAR", LOADED_AT: "TIMESTAMP WITH TIME ZONE"}
_RAW = "raw"
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_NAMED = re.compile(r"[\"']([^\"']+)[\"']")


def find_model_problems(
    manifest: Node, compiled: Mapping[str, str], raw_tables: Mapping[str, RawTable], project: Path
) -> Iterator[ModelProblem]:
    """What is wrong with the SQL and the contracts of all models; `compiled` is the SQL of each, by unique id.

    Raw tables have the columns of the YAML that loads them; a source that none declares has those of its dbt description.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        sources = manifest["sources"].values()
        for database in {source["database"] for source in sources} - {_DATABASE}:
            connection.execute(f"ATTACH ':memory:' AS {quote(database)}")
        for source in sources:
            _create(connection, source, _raw_columns(source, raw_tables), database=source["database"])
        nodes = {key: node for key, node in manifest["nodes"].items() if node["resource_type"] in ("model", "seed")}
        order = TopologicalSorter({key: [parent for parent in _parents(node) if parent in nodes] for key, node in nodes.items()})
        for key in order.static_order():
            node = nodes[key]
            if node["resource_type"] == "seed":
                yield from _seed(connection, node, project)
            else:
                yield from _model(connection, node, compiled[key], project)


def _seed(connection: duckdb.DuckDBPyConnection, node: Node, project: Path) -> Iterator[ModelProblem]:
    types = {**_declared(node), **node["config"].get("column_types", {})}
    try:
        names = connection.execute(
            "SELECT column_name, column_type FROM (DESCRIBE FROM read_csv(?))", [str(project / node["original_file_path"])]
        ).fetchall()
    except duckdb.Error as error:
        yield ModelProblem(node["original_file_path"], node["name"], (), f"cannot be read: {_first_line(error)}")
        names = []
    _create(connection, node, {name: types.get(name) or kind for name, kind in names} or types)


def _model(connection: duckdb.DuckDBPyConnection, node: Node, sql: str, project: Path) -> Iterator[ModelProblem]:
    """Create the table of a model. One whose SQL is wrong has the columns of its contract, so that what reads it is checked as well."""
    declared = _declared(node)
    schema, name = node["schema"], node.get("alias") or node["name"]
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quote(schema)}")
    target = f"{quote(schema)}.{quote(name)}"
    try:
        connection.execute(f"CREATE OR REPLACE TABLE {target} AS SELECT * FROM (\n{sql}\n) LIMIT 0")
    except duckdb.Error as error:
        file = node["original_file_path"]
        line = _line(error, sql, project / file)
        yield ModelProblem(file, node["name"], (), _problem(error), line=line)
        _create(connection, node, declared)
        return
    built = {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {target}").fetchall()}
    yield from _contract_problems(connection, node, declared, built)


def _contract_problems(
    connection: duckdb.DuckDBPyConnection, node: Node, declared: Mapping[str, str], built: Mapping[str, str]
) -> Iterator[ModelProblem]:
    file = (node.get("patch_path") or node["original_file_path"]).split("://")[-1]
    sql = node["original_file_path"]
    try:
        types = canonical_types(connection, {name: kind for name, kind in declared.items() if kind})
    except duckdb.Error as error:
        yield ModelProblem(file, node["name"], ("columns",), f"a data_type is none of DuckDB's: {_first_line(error)}")
        types = {}
    given = {fold(name): kind for name, kind in built.items()}
    for name in node["columns"]:
        path = ("columns", name)
        if fold(name) not in given:
            yield ModelProblem(file, node["name"], path, f"{sql} has no such column; {nearest(name, list(built))}")
        elif name in types and types[name] != given[fold(name)]:
            message = f"is {types[name]} here and {given[fold(name)]} in {sql}; cast it there, or change data_type here"
            yield ModelProblem(file, node["name"], path, message)
    stated = set(map(fold, node["columns"]))
    enforced = node["config"].get("contract", {}).get("enforced")
    if enforced and (further := [name for name in built if fold(name) not in stated]):
        message = f"the contract lacks {', '.join(further)}, which {sql} gives; describe them here, or leave them out there"
        yield ModelProblem(file, node["name"], ("columns",), message)


def _raw_columns(source: Node, raw_tables: Mapping[str, RawTable]) -> dict[str, str]:
    table = raw_tables.get(source["name"]) if source["schema"] == _RAW else None
    if table is None:
        return _declared(source)
    return {name: column.type for name, column in table.columns.items()} | _AUDIT_TYPES


def _declared(node: Node) -> dict[str, str]:
    return {name: column.get("data_type") or "" for name, column in node["columns"].items()}


def _create(connection: duckdb.DuckDBPyConnection, node: Node, columns: Mapping[str, str], *, database: str = _DATABASE) -> None:
    schema = f"{quote(database)}.{quote(node['schema'])}"
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    typed = ", ".join(f"{quote(name)} {kind or 'VARCHAR'}" for name, kind in columns.items()) or "nothing VARCHAR"
    connection.execute(f"CREATE OR REPLACE TABLE {schema}.{quote(node.get('alias') or node['name'])} ({typed})")


def _parents(node: Node) -> list[str]:
    return list(node.get("depends_on", {}).get("nodes", []))


def _problem(error: duckdb.Error) -> str:
    """What DuckDB says, with its candidates and without the place in the compiled query."""
    lines = str(error).split("\n\nLINE")[0].splitlines()
    message = " ".join(line.strip() for line in lines if line.strip())
    return message.replace(f"{_DATABASE}.", "")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _line(error: duckdb.Error, sql: str, path: Path) -> int | None:
    """The line of the model's file with what DuckDB names: the same line as in the compiled query, or the first with the name."""
    text = path.read_text().splitlines()
    position = _LINE.search(str(error))
    compiled = sql.splitlines()
    # The query stands in a line of its own behind the first.
    number = int(position.group(1)) - 2 if position else -1
    if 0 <= number < len(compiled):
        same = [index for index, line in enumerate(text, start=1) if line.strip() == compiled[number].strip()]
        if len(same) == 1:
            return same[0]
    for name in _NAMED.findall(_first_line(error)):
        for index, line in enumerate(text, start=1):
            if re.search(rf"\b{re.escape(name)}\b", line):
                return index
    return None
