"""The YAML schema of a raw source: which tables it has, where they are read from, and what their columns are. Validation only."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlops_assets.solution import Name, Partitions, Strict

ColumnType = Literal["boolean", "integer", "bigint", "double", "varchar", "date", "timestamp", "timestamptz"]
FileFormat = Literal["csv", "parquet", "json"]


class Column(Strict):
    """One column: read from the source, or computed by the SQL `expression` over the columns before it.

    A row without a value in a `required` column is rejected. `minimum`, `maximum` and `accepted` are checked after loading: a few rows
    outside are a warning, many stop what is downstream.
    """

    type: ColumnType
    description: str = ""
    expression: str | None = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    accepted: list[str] | None = None


class Query(Strict):
    """A SQL query on another database. `url_variable` names the environment variable with its connection string.

    `{start}` and `{end}` in `sql` become the ISO dates of the partitions that are loaded, end exclusive.
    """

    database: Literal["postgres"]
    url_variable: str
    sql: str


class RawTable(Strict):
    """One raw table. `files` are paths beside the YAML file, URLs, or `package:<installed package>/<path>`; a `.zip` is unpacked.

    `options` go to DuckDB's reader of the format. `key` names the columns that identify a row.
    """

    description: str
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    files: list[str] | None = None
    query: Query | None = None
    format: FileFormat | None = None
    null_strings: list[str] = []
    options: dict[str, Any] = {}
    partitions: Partitions | None = None
    key: list[str] = []
    minimum_rows: int = 1
    maximum_reject_share: float = 0.01
    maximum_outside_share: float = 0.05

    @model_validator(mode="after")
    def _is_consistent(self) -> "RawTable":
        if (self.files is None) == (self.query is None):
            raise ValueError("give either `files` or `query`")
        if self.files is not None and self.format is None:
            raise ValueError("`files` need a `format`: csv, parquet or json")
        named = [*self.key, *([self.partitions.column] if self.partitions else [])]
        if unknown := [name for name in named if name not in self.columns]:
            raise ValueError(f"{', '.join(unknown)} must be among `columns`: {', '.join(self.columns)}")
        if self.partitions and self.columns[self.partitions.column].type != "date":
            raise ValueError(f"the partition column {self.partitions.column} must have type date")
        return self


class Source(Strict):
    """Raw tables that come from one place. The attributes of a `RawTables` component."""

    owners: list[str]
    tables: Annotated[dict[Name, RawTable], Field(min_length=1)]
