"""The contract of a feature view: the columns and types that one version first had, which later builds of it must keep.

A check of every `features/*` asset, evaluated by the dbt step: before dbt is called, so that a broken contract changes no table,
and after it, when new columns are recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import duckdb

from mlops_assets.core.check_rules import CheckRule, Evidence
from mlops_assets.core.keys import table_key
from mlops_assets.feature_store.registry import FeatureView
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import column_types, table_exists
from mlops_assets.schema.column_names import RESERVED, fold

CONTRACTS_TABLE = "features.contracts"
"""Lake table: one row a view, version and column, as first materialized."""

CONTRACT = CheckRule(
    name="contract",
    description="No feature of this version was removed, renamed or given another type since the version was first materialized.",
    blocking=True,
    evidence=Evidence(measured=("features", "added"), bound=("maximum_broken",), examples=("removed", "retyped")),
)


@dataclass(frozen=True)
class ContractChange:
    """How the columns (name -> DuckDB type) of a version differ from those recorded. Nothing recorded: all are `added`."""

    removed: Mapping[str, str]
    retyped: Mapping[str, tuple[str, str]]
    added: Mapping[str, str]

    @property
    def breaking(self) -> bool:
        """Whether a reader of the former columns would fail or read something else."""
        return bool(self.removed or self.retyped)

    def __str__(self) -> str:
        parts = [f"{name} removed or renamed (was {kind})" for name, kind in self.removed.items()]
        parts += [f"{name} was {old}, is {new}" for name, (old, new) in self.retyped.items()]
        return "; ".join(parts)


def compare_contract(recorded: Mapping[str, str], current: Mapping[str, str]) -> ContractChange:
    """What changed from the `recorded` columns to the `current` ones. Names are compared as DuckDB does: letters in either case are one."""
    before, after = ({fold(name): (name, kind) for name, kind in columns.items()} for columns in (recorded, current))
    return ContractChange(
        removed={name: kind for folded, (name, kind) in before.items() if folded not in after},
        retyped={
            name: (kind, after[folded][1]) for folded, (name, kind) in before.items() if after.get(folded, ("", kind))[1] != kind
        },
        added={name: kind for folded, (name, kind) in after.items() if folded not in before},
    )


def recorded_contracts(connection: duckdb.DuckDBPyConnection) -> dict[tuple[str, int], dict[str, str]]:
    """(view, version) -> the columns as first materialized."""
    if not table_exists(connection, CONTRACTS_TABLE):
        return {}
    contracts: dict[tuple[str, int], dict[str, str]] = {}
    rows = connection.execute(f'SELECT view, version, "column", type FROM lake.{CONTRACTS_TABLE} ORDER BY ALL').fetchall()
    for view, version, column, kind in rows:
        contracts.setdefault((view, version), {})[column] = kind
    return contracts


def declared_columns(connection: duckdb.DuckDBPyConnection, view: FeatureView) -> dict[str, str]:
    """The columns that the dbt model declares, with the types as DuckDB names them. Columns without a type are left out."""
    names = [name for name, kind in view.model.columns.items() if kind and fold(name) not in RESERVED["features"]]
    if not names:
        return {}
    types = ", ".join(f"typeof(NULL::{view.model.columns[name]})" for name in names)
    return dict(zip(names, connection.execute(f"SELECT {types}").fetchall()[0], strict=True))


def built_columns(connection: duckdb.DuckDBPyConnection, view: FeatureView) -> dict[str, str]:
    """The columns that the lake's table has."""
    schema, name = view.model.table.split(".")
    types = column_types(connection, f"lake.{quote(schema)}.{quote(name)}")
    return {column: kind for column, kind in types.items() if fold(column) not in RESERVED["features"]}


def record_additions(lake: Lake, additions: Sequence[tuple[FeatureView, Mapping[str, str]]], *, author: str) -> None:
    """Add columns to the contracts; those that another run recorded meanwhile stay as they are."""
    if not any(columns for _, columns in additions):
        return
    with lake.writer_lock([CONTRACTS_TABLE]), lake.connect(read_only=False) as connection:
        connection.execute("BEGIN")
        try:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {CONTRACTS_TABLE} "
                '(view VARCHAR, version INTEGER, "column" VARCHAR, type VARCHAR, recorded_by VARCHAR)'
            )
            contracts = {key: {fold(name) for name in columns} for key, columns in recorded_contracts(connection).items()}
            rows = [
                (view.name, view.version, column, kind, author)
                for view, columns in additions
                for column, kind in columns.items()
                if fold(column) not in contracts.get((view.name, view.version), set())
            ]
            if rows:
                connection.executemany(f"INSERT INTO {CONTRACTS_TABLE} VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        except BaseException:  # an interrupt too leaves no open transaction, and is raised again
            connection.execute("ROLLBACK")
            raise


def check_contract(
    view: FeatureView, change: ContractChange, *, solutions: Sequence[str], live_models: Sequence[str]
) -> dg.AssetCheckResult:
    """The outcome for one view, with the solutions and the live models that read it."""
    return CONTRACT.result(
        table_key(view.model.table),
        passed=not change.breaking,
        metadata={
            "view": view.name,
            "version": view.version,
            "features": len(view.features),
            "maximum_broken": 0,
            "removed": dg.MetadataValue.json(dict(change.removed)),
            "retyped": dg.MetadataValue.json({name: f"{old} -> {new}" for name, (old, new) in change.retyped.items()}),
            "added": dg.MetadataValue.json(dict(change.added)),
            "solutions": dg.MetadataValue.json(list(solutions)),
            "live_models": dg.MetadataValue.json(list(live_models)),
        },
        description=broken_message(view, change, solutions=solutions, live_models=live_models) if change.breaking else None,
    )


def broken_message(view: FeatureView, change: ContractChange, *, solutions: Sequence[str], live_models: Sequence[str]) -> str:
    """What broke, for whom, and what to do instead."""
    return (
        f"Feature view {view.name} version {view.version} breaks its contract: {change}. "
        f"Solutions that use it: {', '.join(solutions) or 'none'}. Live models that read it: {', '.join(live_models) or 'none'}. "
        f"Declare the change as a new dbt version of the model ({view.name} version {view.version + 1}, under `versions:` in its .yml) "
        "and leave this version as it was."
    )
