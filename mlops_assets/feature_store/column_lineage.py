"""Column lineage of dbt models: the compiled SQL of the project, read with sqlglot.

A column depends on every column in its expression, and on every column that decides which rows there are (filters, joins,
groups, windows). What cannot be told apart counts as a dependency: the answer may name too much, and does not name too little.
"""

import json
import os
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

Column = tuple[str, str]
"""Table (`schema.name`) and column, in lower case: SQL does not tell `AGEP` from `agep`."""

_PROFILE = """mlops:
  target: memory
  outputs:
    memory: {type: duckdb, path: ":memory:", schema: main, threads: 1}
"""


class LineageError(Exception):
    """The project cannot be compiled; the message is dbt's."""


@dataclass
class _Relation:
    """The result of a query: its columns with what they depend on, and what decides which rows there are."""

    columns: dict[str, set[Column]] = field(default_factory=dict)
    rows: set[Column] = field(default_factory=set)


@dataclass(frozen=True)
class Lineage:
    """Table -> column -> the upstream columns (one model further) it depends on. `unreadable` models count as all on all."""

    dependencies: Mapping[str, Mapping[str, frozenset[Column]]]
    unreadable: tuple[str, ...]

    def affected(self, table: str, column: str | None) -> dict[str, set[str]]:
        """Table -> its columns that depend on `table` (on `column` of it), however far downstream; `table` itself is left out."""
        reached: dict[str, set[str]] = {}
        start = {(table, column.lower())} if column else {(table, name) for name in self._names(table)}
        frontier: set[Column] = start
        while frontier:
            newly_reached = {
                (name, own)
                for name, columns in self.dependencies.items()
                for own, upstream in columns.items()
                if not frontier.isdisjoint(upstream) and own not in reached.get(name, set())
            }
            for name, own in newly_reached:
                reached.setdefault(name, set()).add(own)
            frontier = {(name, own.lower()) for name, own in newly_reached}
        return reached

    def _names(self, table: str) -> set[str]:
        return {
            column
            for columns in self.dependencies.values()
            for upstream in columns.values()
            for name, column in upstream
            if name == table
        }


def read_lineage(manifest: Mapping[str, Any], compiled: Mapping[str, str]) -> Lineage:
    """The lineage of all models of a dbt manifest; `compiled` is the SQL of each, by unique id."""
    schema = table_columns(manifest)
    dependencies: dict[str, Mapping[str, frozenset[Column]]] = {}
    unreadable = []
    for node in manifest["nodes"].values():
        if node["resource_type"] != "model":
            continue
        name = relation_name(node)
        parents = {relation_name(parent): parent for parent in (_node(manifest, key) for key in node["depends_on"]["nodes"])}
        # Compiled without a window, the SQL does not show the columns by which a model selects the window of its inputs.
        window = {(table, column.lower()) for table, parent in parents.items() if (column := _partition_column(parent))}
        try:
            dependencies[name] = _dependencies(compiled[node["unique_id"]], schema, schema[name], window)
        except SqlglotError:
            unreadable.append(name)
            everything = frozenset((parent, column.lower()) for parent in parents for column in schema[parent])
            dependencies[name] = dict.fromkeys(schema[name], everything)
    return Lineage(dependencies=dependencies, unreadable=tuple(sorted(unreadable)))


def value_sources(manifest: Mapping[str, Any], node: Mapping[str, Any], sql: str) -> dict[str, frozenset[Column]]:
    """Column of a dbt model -> the columns of its parents that its value is computed from; `sql` is the model's compiled SQL.

    A column that is computed from none, such as a count, has those that decide which rows there are. Columns that cannot be told apart
    have all columns of all parents.
    """
    schema = table_columns(manifest)
    tree = parse_one(sql, dialect="duckdb")
    if _is_beyond_reading(tree):
        parents = [relation_name(_node(manifest, key)) for key in node["depends_on"]["nodes"]]
        everything = frozenset((parent, column.lower()) for parent in parents for column in schema[parent])
        return dict.fromkeys(node["columns"], everything)
    relation = _query(tree, schema, {})
    return {name: frozenset(relation.columns.get(name.lower()) or relation.rows) for name in node["columns"]}


def row_sources(manifest: Mapping[str, Any], sql: str) -> frozenset[Column]:
    """The columns that decide which rows the compiled query `sql` has or counts: of filters, joins and groups."""
    tree = parse_one(sql, dialect="duckdb")
    return frozenset() if _is_beyond_reading(tree) else frozenset(_query(tree, table_columns(manifest), {}).rows)


def compiled_sql(project: Path, manifest_path: Path, cache: Path) -> dict[str, str]:
    """Compiled SQL of every model by unique id, from dbt without a database: 10 s once, then from `cache` until the manifest changes.

    Raises LineageError with what dbt said.
    """
    stamp = f"{manifest_path.stat().st_mtime_ns}"
    stored = cache / "compiled.json"
    if stored.is_file():
        content = json.loads(stored.read_text())
        if content["manifest"] == stamp:
            return content["models"]
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "profiles.yml").write_text(_PROFILE)
    target = cache / "target"
    options = [
        "--no-introspect",
        "--no-populate-cache",
        "--profiles-dir",
        str(cache),
        "--profile",
        "mlops",
        "--target-path",
        str(target),
    ]
    command = [str(Path(sysconfig.get_path("scripts")) / "dbt"), "--quiet", "--log-path", str(target), "compile", *options]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LineageError(f"dbt cannot compile {project}:\n{(done.stdout + done.stderr).strip()}")
    nodes = json.loads((target / "manifest.json").read_text())["nodes"].values()
    models = {node["unique_id"]: node["compiled_code"] for node in nodes if node["resource_type"] == "model"}
    scratch = cache / f"compiled.{os.getpid()}"
    scratch.write_text(json.dumps({"manifest": stamp, "models": models}))
    scratch.replace(stored)
    return models


def table_columns(manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """Table -> its columns as declared, of all models, seeds and sources."""
    every = [*manifest["nodes"].values(), *manifest["sources"].values()]
    return {relation_name(node): list(node["columns"]) for node in every if node["resource_type"] in ("model", "seed", "source")}


def relation_name(node: Mapping[str, Any]) -> str:
    """The lake table of a model, seed or source: `schema.name`."""
    return f"{node['schema']}.{node.get('alias') or node['name']}"


def _node(manifest: Mapping[str, Any], unique_id: str) -> Mapping[str, Any]:
    return manifest["sources"][unique_id] if unique_id.startswith("source.") else manifest["nodes"][unique_id]


def _partition_column(node: Mapping[str, Any]) -> str | None:
    return node["config"].get("meta", {}).get("partition_column")


def _dependencies(
    sql: str, schema: Mapping[str, list[str]], column_names: Sequence[str], window: set[Column]
) -> dict[str, frozenset[Column]]:
    tree = parse_one(sql, dialect="duckdb")
    if _is_beyond_reading(tree):
        raise SqlglotError("its columns are not named in it")
    relation = _query(tree, schema, {})
    return {name: frozenset(relation.columns.get(name.lower(), set()) | relation.rows | window) for name in column_names}


def _is_beyond_reading(tree: exp.Expr) -> bool:
    """Whether columns are made by a pattern or a pivot, or replaced within a star."""
    stars = (star for star in tree.find_all(exp.Star) if any(star.args.get(part) for part in ("replace", "rename")))
    return tree.find(exp.Pivot, exp.Columns) is not None or any(stars)


def _query(query: exp.Expr, schema: Mapping[str, list[str]], known: Mapping[str, _Relation]) -> _Relation:
    """Return the result of `query`; `known` are the common table expressions around it."""
    inner = dict(known)
    common = query.args.get("with_") or query.args.get("with")
    for common_table in common.expressions if common else []:
        inner[common_table.alias] = _query(common_table.this, schema, inner)
    if isinstance(query, exp.Subquery | exp.Paren):
        return _query(query.this, schema, inner)
    if isinstance(query, exp.SetOperation):
        return _merge(_query(query.left, schema, inner), _query(query.right, schema, inner))
    if not isinstance(query, exp.Select):
        return _everything(query, schema, inner)
    sources = dict(_sources(query, schema, inner))
    result = _Relation(rows=set().union(*(source.rows for source in sources.values())))
    for projection in query.expressions:
        if projection.is_star:
            result.columns |= _star(projection, sources)
            continue
        result.columns[projection.alias_or_name.lower()] = _depends_on(projection, sources, result.columns, schema, inner)
    deciding = [query.args.get(part) for part in ("where", "group", "having", "qualify", "distinct", "limit")]
    for clause in [*deciding, *query.args.get("joins", []), *query.args.get("windows", []), *query.args.get("laterals", [])]:
        if clause is not None:
            result.rows |= _depends_on(clause, sources, result.columns, schema, inner)
    if (group := query.args.get("group")) is not None and group.args.get("all"):
        keys = [projection for projection in query.expressions if not projection.is_star and not projection.find(exp.AggFunc)]
        result.rows |= set().union(*(result.columns[key.alias_or_name.lower()] for key in keys))
    return result


def _sources(
    query: exp.Select, schema: Mapping[str, list[str]], known: Mapping[str, _Relation]
) -> Iterator[tuple[str, _Relation]]:
    start = query.args.get("from_") or query.args.get("from")
    for position, source in enumerate([*([start.this] if start else []), *(join.this for join in query.args.get("joins", []))]):
        name = source.alias_or_name or f"unnamed {position}"
        if isinstance(source, exp.Table):
            yield name, _table(source, schema, known)
        else:
            yield name, _query(source, schema, known)


def _table(table: exp.Table, schema: Mapping[str, list[str]], known: Mapping[str, _Relation]) -> _Relation:
    if not table.db and table.name in known:
        return known[table.name]
    name = f"{table.db}.{table.name}"
    return _Relation(columns={column: {(name, column)} for column in map(str.lower, schema.get(name, []))})


def _star(projection: exp.Expr, sources: Mapping[str, _Relation]) -> dict[str, set[Column]]:
    owner = projection.table if isinstance(projection, exp.Column) else ""
    chosen = [sources[owner]] if owner in sources else list(sources.values())
    return {name: set(depends) for source in chosen for name, depends in source.columns.items()}


def _depends_on(
    expression: exp.Expr,
    sources: Mapping[str, _Relation],
    earlier: Mapping[str, set[Column]],
    schema: Mapping[str, list[str]],
    known: Mapping[str, _Relation],
) -> set[Column]:
    """All columns behind `expression`, queries inside it included; `earlier` are the aliases of the same select list."""
    columns: set[Column] = set()
    for query in expression.find_all(exp.Select, exp.SetOperation):
        columns |= _all_of(_query(query, schema, known))
    for column in expression.find_all(exp.Column):
        # `a.b` is column b of table a, or field b of the struct a.
        owner, name = (column.table, column.name) if column.table in sources else ("", column.parts[0].name)
        name = name.lower()
        holders = [sources[owner]] if owner else [source for source in sources.values() if name in source.columns]
        for holder in holders:
            columns |= holder.columns.get(name, set())
        if not holders:
            columns |= earlier.get(name, set())
    return columns


def _everything(expression: exp.Expr, schema: Mapping[str, list[str]], known: Mapping[str, _Relation]) -> _Relation:
    """A source that is no select, such as a table function: all that is named inside decides its rows."""
    tables = [_table(table, schema, known) for table in expression.find_all(exp.Table)]
    return _Relation(rows=set().union(*(_all_of(table) for table in tables)))


def _merge(left: _Relation, right: _Relation) -> _Relation:
    """A union: columns by position, with the names of the left side."""
    right_columns: Iterable[set[Column]] = list(right.columns.values())
    paired = zip(left.columns.items(), right_columns, strict=False)
    return _Relation(
        columns={name: upstream_left | upstream_right for (name, upstream_left), upstream_right in paired},
        rows=left.rows | right.rows,
    )


def _all_of(relation: _Relation) -> set[Column]:
    return relation.rows.union(*relation.columns.values())
