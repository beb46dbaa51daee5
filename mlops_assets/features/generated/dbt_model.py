"""A dbt model as text: its SQL and the YAML beside it, with contract, tests and descriptions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import duckdb
import yaml

from mlops_assets.lake.sql import quote
from mlops_assets.schema.column_names import LOADED_AT

_TYPES = {"timestamptz": "timestamp with time zone"}
_JINJA = re.compile(r"\{[{%#]")


@dataclass(frozen=True, kw_only=True)
class DbtColumn:
    """A column of a contract. `tests` are data tests as dbt's YAML states them."""

    name: str
    type: str
    description: str
    required: bool = False
    tests: tuple[Any, ...] = ()

    def document(self) -> dict[str, Any]:
        """The column in the YAML of a model."""
        described = {"name": plain(self.name), "data_type": dbt_type(self.type), "description": plain(self.description)}
        # dbt writes the name into the SQL of the contract.
        quoted = {} if sql_word(self.name) == self.name else {"quote": True}
        constraints = {"constraints": Inline([{"type": "not_null"}])} if self.required else {}
        return described | quoted | constraints | ({"data_tests": Inline(self.tests)} if self.tests else {})


@dataclass(frozen=True, kw_only=True)
class GeneratedModel:
    """A dbt model: the folder below `models/` in which a person would put it, its SQL, and its entry in the YAML beside it.

    `origin` is the file that declares it, from the root of the project.
    """

    name: str
    folder: str
    origin: str
    sql: str
    document: Mapping[str, Any]

    def files(self) -> dict[str, str]:
        """Path below `generated/` -> content."""
        # The SQL is the code version of the asset: it stays the same when the files become a person's.
        return {
            f"{self.folder}/{self.name}.sql": f"-- Compiled from {self.origin}.\n{self.sql}",
            f"{self.folder}/{self.name}.yml": f"{self.notice()}{dbt_yaml({'models': [self.document]})}",
        }

    def notice(self) -> str:
        """The first line of the YAML while the model is compiled."""
        return f"# Compiled from {self.origin} by `mlops prepare`. To edit it: mlops features eject {self.name}\n"


LOADED_AT_COLUMN = DbtColumn(
    name=LOADED_AT, type="timestamptz", description="When the newest raw row behind this row was loaded.", required=True
)


def dbt_type(data_type: str) -> str:
    """A type of a raw table, or of DuckDB, as dbt models state it."""
    name = data_type.lower()
    return _TYPES.get(name, name)


def plain(text: str) -> str:
    """`text` for a file that dbt renders as a template."""
    return f"{{% raw %}}{text}{{% endraw %}}" if _JINJA.search(text) else text


def sql_word(column: str) -> str:
    """`column` in SQL: quoted where it has to be."""
    is_plain = re.fullmatch(r"[a-z_][a-z0-9_]*", column) and column not in _reserved_words()
    return column if is_plain else quote(column)


def sql_name(column: str) -> str:
    """`column` in the SQL of a dbt model, which is a template."""
    return plain(sql_word(column))


def sql_value(expression: str) -> str:
    """A SQL expression of a YAML file in the SQL of a dbt model."""
    return plain(" ".join(expression.split("\n")).strip())


class Inline(list[Any]):
    """A list that is written on one line."""


class InlineMapping(dict[str, Any]):
    """A mapping that is written on one line."""


def dbt_yaml(document: Mapping[str, Any]) -> str:
    """`document` as the YAML files of a dbt project are written."""
    return yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


def source_reference(table: str) -> str:
    """The raw table `table` in the SQL of a dbt model."""
    return f"{{{{ source('raw', '{table}') }}}}"


def selected(columns: Iterable[str]) -> str:
    """The lines of a `select`."""
    return ",\n".join(f"    {column}" for column in columns)


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists within mappings."""
        super().increase_indent(flow, False)


_Dumper.add_representer(
    InlineMapping, lambda dumper, entries: dumper.represent_mapping("tag:yaml.org,2002:map", entries, flow_style=True)
)
_Dumper.add_representer(
    Inline, lambda dumper, entries: dumper.represent_sequence("tag:yaml.org,2002:seq", entries, flow_style=True)
)


@lru_cache(maxsize=1)
def _reserved_words() -> frozenset[str]:
    with duckdb.connect() as connection:
        rows = connection.execute("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category <> 'unreserved'").fetchall()
    return frozenset(name for (name,) in rows)
