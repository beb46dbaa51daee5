"""The YAML schema of a raw source: which tables it has, where they are read from, and what their columns are. Validation only."""

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mlops_assets.schema.feature_views_section import FeatureViewSection
from mlops_assets.schema.source_reader import READERS, file_readers, find_reader
from mlops_assets.schema.table_columns import TableColumn, accepted_value
from mlops_assets.schema.time_partitions import Partitions, Schedule
from mlops_assets.schema.yaml_model import Name, Owners, YamlModel

ColumnType = Literal["boolean", "integer", "bigint", "double", "varchar", "date", "timestamp", "timestamptz"]


class Column(YamlModel):
    """One column: read from the source, or computed by the SQL `expression` over the columns before it.

    `source` is its name in the source, where that is another one. Files may lack a column that is `optional`: it is null in their rows.
    A row without a value in a `required` column is rejected. `minimum`, `maximum` and `accepted` are checked after loading: a few rows
    outside are a warning, many stop what is downstream.
    """

    type: ColumnType
    """Type in the lake. A value that cannot become it is a reason to reject the row."""
    description: str = ""
    """What the column holds; unit and time zone belong here."""
    source: str | None = None
    """Name of the column in the source, where it is another one."""
    expression: str | None = None
    """SQL over the columns before it that computes the column; left out, it is read from the source."""
    optional: bool = False
    """Files may lack the column; it is null in their rows."""
    required: bool = False
    """A row without a value is rejected."""
    minimum: float | None = None
    """Least value. Checked by `ranges`; a value outside is kept."""
    maximum: float | None = None
    """Greatest value. Checked by `ranges`; a value outside is kept."""
    accepted: list[str] | None = None
    """The values that may occur. Checked by `ranges`; another value is kept."""

    @model_validator(mode="after")
    def _is_read_or_computed(self) -> "Column":
        if self.expression is not None and (self.source is not None or self.optional):
            raise ValueError("`source` and `optional` are of a column that is read, not of one with an `expression`")
        if (self.minimum is not None or self.maximum is not None) and self.type not in ("integer", "bigint", "double"):
            raise ValueError(f"`minimum` and `maximum` are of numbers; a {self.type} column has none: use `accepted`")
        for text in self.accepted or ():
            try:
                accepted_value(text, self.type)
            except ValueError as error:
                raise ValueError(f"`accepted`: {text!r} is no {self.type}") from error
        return self


class Query(YamlModel):
    """A SQL query on another database. `url_variable` names the environment variable with its connection string.

    `{start}` and `{end}` in `sql` become the ISO dates of the partitions that are loaded, end exclusive.
    """

    database: str
    """Kind of the other database: `postgres`, or [a reader of your own](extend.md#source-reader)."""
    url_variable: str
    """Name of the environment variable that holds the connection string."""
    sql: str
    """The query, in that database's SQL. `{start}` and `{end}` become the ISO dates of the range, end exclusive."""

    @field_validator("database")
    @classmethod
    def _has_reader(cls, database: str) -> str:
        find_reader(database, "query")
        return database


class DeliveryComparison(YamlModel):
    """How a delivery is compared with the partitions before it, in the check `delivery`.

    A unit of distance is three times the usual difference between partitions plus a quarter of the usual spread within one.
    """

    enabled: bool = True
    """Whether deliveries are compared."""
    partitions: int = Field(default=28, ge=1)
    """With how many partitions before it a partition is compared, at most."""
    minimum_partitions: int = Field(default=7, ge=1)
    """With how many at least; a table without partitions is compared with its last version."""
    notable: float = Field(default=1.5, gt=0)
    """The move of the quantiles of a column that is a warning, in the units above."""
    gross: float = Field(default=4.0, gt=0)
    """The move that blocks, if it is to where no value was before."""
    scale: float = Field(default=5.0, gt=1)
    """By which factor the spread within a partition may leave what it ever was."""
    fewest_rows: float = Field(default=0.75, ge=0, le=1)
    """A partition has too few rows below this share of the least before it; below less where their numbers differ much, as at weekends.
    0 lets a holiday be as quiet as it likes."""
    ignore: list[str] = []
    """Columns that are not compared."""
    awaited: list[str] = []
    """Columns that are null until something has happened, such as a label: that they are missing is told, and blocks nothing. The label and
    the label time of a spine that is derived from the table, and `known_at` of its feature views, are such without being named."""


class RawTable(YamlModel):
    """One raw table. `files` are paths beside the YAML file, URLs, or `package:<installed package>/<path>`; packed files are unpacked.

    `options` are those of the reader. `key` names the columns that identify a row.
    """

    description: str
    """What the table holds."""
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    """The columns to keep, by their names in the lake. Source columns that are not listed are not loaded."""
    files: list[str] | None = None
    """Paths beside the YAML file, URLs, or `package:<installed package>/<path>`. A packed file is unpacked."""
    query: Query | None = None
    """A query on another database, instead of `files`."""
    format: Annotated[str | None, Field(validate_default=True)] = None
    """Format of `files`: `csv`, `json`, `parquet`, or [a reader of your own](extend.md#source-reader). Left out, what the name of the first
    file ends with."""
    null_strings: list[str] = []
    """Texts that mean null; in a CSV file the empty text does, too."""
    options: Annotated[dict[str, Any], Field(validate_default=True)] = {}
    """Options of the reader, such as `delim`: [how a source is read](data-and-features.md#how-a-source-is-read)."""
    partitions: Partitions | None = None
    """Time partitions. Left out, the table is replaced as a whole."""
    key: list[str] = []
    """The columns that identify a row. Checked by `duplicates`."""
    minimum_rows: int = 1
    """The least rows of each partition (unpartitioned: of the table). Checked by `row_count`."""
    maximum_reject_share: float = 0.01
    """The largest share of rows that may be rejected. Checked by `rejected_rows`."""
    maximum_outside_share: float = 0.05
    """The largest share of rows with a value outside its range that is only a warning. Checked by `ranges`."""
    comparison: DeliveryComparison = DeliveryComparison()
    """How a delivery is compared with those before it. Checked by `delivery`."""

    @field_validator("format", mode="before")
    @classmethod
    def _end_of_the_name(cls, name: Any, info: ValidationInfo) -> Any:
        files = info.data.get("files")
        if name is not None or not files:
            return name
        return next(
            (end for suffix in reversed(PurePath(files[0]).suffixes) if (end := suffix[1:].lower()) in file_readers()), None
        )

    @field_validator("format")
    @classmethod
    def _has_reader(cls, name: str | None) -> str | None:
        if name is not None:
            find_reader(name, "files")
        return name

    @field_validator("options")
    @classmethod
    def _suit_the_reader(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        query = info.data.get("query")
        name = query.database if query else info.data.get("format")
        if name is not None:
            READERS.get(name).check_options(name, options)
        return options

    @property
    def table_columns(self) -> dict[str, TableColumn]:
        """The columns as every table declares them."""
        return {
            name: TableColumn(
                type=column.type,
                description=column.description,
                nullable=not column.required,
                minimum=column.minimum,
                maximum=column.maximum,
                accepted=None if column.accepted is None else tuple(column.accepted),
            )
            for name, column in self.columns.items()
        }

    @property
    def bounded(self) -> list[str]:
        """The columns whose values have bounds."""
        return [
            name
            for name, column in self.columns.items()
            if (column.minimum, column.maximum, column.accepted) != (None, None, None)
        ]

    @model_validator(mode="after")
    def _is_consistent(self) -> "RawTable":
        if (self.files is None) == (self.query is None):
            raise ValueError("give either `files` or `query`")
        if self.files is not None and self.format is None:
            raise ValueError(f"`files` need a `format`: {', '.join(file_readers())}, or a reader of your own")
        named = [
            *self.comparison.ignore,
            *self.comparison.awaited,
            *self.key,
            *([self.partitions.column] if self.partitions else []),
        ]
        if unknown := [name for name in named if name not in self.columns]:
            raise ValueError(f"{', '.join(unknown)} must be among `columns`: {', '.join(self.columns)}")
        if self.partitions and self.columns[self.partitions.column].type != "date":
            raise ValueError(f"the partition column {self.partitions.column} must have type date")
        return self


class Source(YamlModel):
    """Raw tables that come from one place. The attributes of a `RawTables` component."""

    owners: Owners
    """Who answers for the tables: e-mail addresses or `team:<name>`. Shown in Dagster."""
    schedule: Schedule | None = None
    """When the partitions that ended since the tick before are loaded, and all tables without partitions."""
    tables: Annotated[dict[Name, RawTable], Field(min_length=1)]
    """The tables by name. A table becomes the asset and the lake table `raw.<name>`."""
    feature_views: dict[Name, FeatureViewSection] = {}
    """Feature views over the tables by name, each the asset and the lake table `features.<name>`."""

    @property
    def model_partitions(self) -> Partitions | None:
        """The partitions of the source's dbt models: those of its tables together; None when no table has any, or their cadences differ."""
        found = [table.partitions for table in self.tables.values() if table.partitions]
        if not found or len({partitions.cadence for partitions in found}) > 1:
            return None
        ends = [partitions.end for partitions in found]
        return found[0].model_copy(
            update={
                "start": min(partitions.start for partitions in found),
                "end": None if None in ends else max(end for end in ends if end),
            }
        )

    @field_validator("feature_views")
    @classmethod
    def _name_their_table(cls, views: dict[str, FeatureViewSection], info: ValidationInfo) -> dict[str, FeatureViewSection]:
        if "tables" not in info.data:  # they are wrong themselves, which is told
            return views
        tables = list(info.data["tables"])
        if len(tables) != 1 and (unnamed := [name for name, view in views.items() if not view.table]):
            raise ValueError(f"{', '.join(unnamed)}: the source has several tables: say which, `table: {' or '.join(tables)}`")
        return {name: view if view.table else view.model_copy(update={"table": tables[0]}) for name, view in views.items()}

    @model_validator(mode="after")
    def _has_one_cadence(self) -> "Source":
        cadences = {table.partitions.cadence for table in self.tables.values() if table.partitions}
        if self.feature_views and len(cadences) > 1:
            raise ValueError(
                f"`feature_views` need tables of one cadence, not {', '.join(sorted(cadences))}: declare a source for each"
            )
        return self
