"""The readers of the platform, by the names that `format` and `query.database` of a raw table take."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mlops_assets.schema.source_reader import Reads
from mlops_assets.sources.column_types import FORMAT_OPTIONS
from mlops_assets.sources.csv_reader import csv_extract
from mlops_assets.sources.extract import Extract, SourcePart
from mlops_assets.sources.json_reader import json_extract
from mlops_assets.sources.parquet_reader import parquet_extract
from mlops_assets.sources.postgres_reader import postgres_extract
from mlops_assets.sources.reader_options import COMPRESSION, check_options, platform_options


@dataclass(frozen=True, kw_only=True)
class SqlReader:
    """A reader whose rows DuckDB reads by itself."""

    function: Callable[[SourcePart], Extract]
    options: Collection[str]
    reads: Reads = "files"
    is_text: bool = False
    reads_urls: bool = False

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that has no effect, or whose value is none."""
        check_options(f"{name} files" if self.reads == "files" else f"a {name} query", self.options, options)
        if "header" in self.options and options.get("header") is False and not options.get("names"):
            raise ValueError("a CSV file without a header needs the option `names`")

    def extract(self, part: SourcePart) -> Extract:
        """The rows of `part`."""
        return self.function(part)


csv = SqlReader(
    function=csv_extract,
    is_text=True,
    options=platform_options(is_text=True)
    | {"sep", "delim", "delimiter", "quote", "escape", "comment", "skip", "header", "names"}
    | {"allow_quoted_nulls", "buffer_size", "max_line_size", "null_padding", "parallel", "strict_mode"},
)
json = SqlReader(function=json_extract, is_text=True, options=platform_options(is_text=True) | {"format", "maximum_object_size"})
parquet = SqlReader(
    function=parquet_extract,
    reads_urls=True,
    options={COMPRESSION, "binary_as_string", "encryption_config", "file_row_number", "filename", "hive_partitioning"},
)
postgres = SqlReader(function=postgres_extract, reads="query", options=FORMAT_OPTIONS)
