"""Parquet files as DuckDB queries: each column in its exact type."""

from collections.abc import Collection
from pathlib import Path

import duckdb

from mlops_assets.lake.sql import literal
from mlops_assets.lake.tables import column_types
from mlops_assets.schema.column_names import internal
from mlops_assets.sources.arrow_types import LARGEST_PRECISION, exact_fields
from mlops_assets.sources.column_types import NANOSECOND_INSTANT
from mlops_assets.sources.csv_reader import json_row, reader_options
from mlops_assets.sources.extract import Extract, Field, SourceError, SourcePart, position
from mlops_assets.sources.files import download

_NANOSECOND_RANGE = 9 * 10**15
"""Microseconds around 1970 that 64 bits of nanoseconds certainly hold."""


def parquet_extract(part: SourcePart) -> Extract:
    """The rows of a Parquet file on this machine or at a URL."""
    connection, path, label, options = part.connection, part.path, part.label, part.options
    # The values of a path are text like any other, and none of the file's unless the YAML file says so.
    settings = {"hive_partitioning": False, **options}
    if settings["hive_partitioning"]:
        settings |= {"hive_types_autocast": False}
        inside = column_types(connection, f"read_parquet({literal(path)}, hive_partitioning = false)")
        folders = [part.partition("=")[0] for part in Path(path).parts if "=" in part]
        if both := [name for name in folders if name in inside]:
            raise SourceError(f"{label}: the folder and the file both have a column {both[0]}. Leave out `hive_partitioning`.")
    instants: set[str] = set()
    if "encryption_config" not in options:
        path, instants = _exact(connection, path, label, folder=part.folder, wanted=part.wanted)
    reader = f"read_parquet({literal(path)}{reader_options(settings)})"
    types = column_types(connection, reader)
    columns = ", ".join(position(number) for number in range(len(types)))
    return Extract(
        label=label,
        fields={
            name: Field(position(number), NANOSECOND_INSTANT if name in instants else kind)
            for number, (name, kind) in enumerate(types.items())
        },
        relation=f"(FROM {reader} AS {internal('file')}({columns}))",
        row=json_row(list(types.items())),
    )


def _exact(
    connection: duckdb.DuckDBPyConnection, path: str, label: str, *, folder: Path, wanted: Collection[str]
) -> tuple[str, set[str]]:
    """`path`, or a copy with the same instants as times without a zone and times of day as text, and the names of the instants.

    DuckDB reads these, and times of the old type INT96, to the microsecond and drops the rest without a word; decimals of more digits
    than it has become other numbers.
    """
    schema = connection.execute(
        f"SELECT name, type = 'INT96', coalesce(precision, 0) > {LARGEST_PRECISION}, coalesce(logical_type LIKE '%NANOS=Nano%' "
        f"AND (logical_type LIKE 'TimeType%' OR logical_type LIKE '%isAdjustedToUTC=1%'), false) FROM parquet_schema({literal(path)})"
    ).fetchall()
    if wide := [name for name, _, is_wide, _ in schema if is_wide and name in wanted]:
        raise SourceError(
            f"{label}: the numbers of the column {wide[0]} have more than {LARGEST_PRECISION} digits, which cannot be read. Write them as text."
        )
    if "://" in path and any(is_old or is_fine for _, is_old, _, is_fine in schema):
        path = str(download(connection, path, folder))
    if any(is_old for _, is_old, _, _ in schema):
        _refuse_fine_int96(path, label)
    if not any(is_fine for *_, is_fine in schema):
        return path, set()
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    changed, instants = exact_fields(list(file.schema_arrow))
    copy = str(folder / "nanoseconds.parquet")
    with pyarrow.parquet.ParquetWriter(copy, pyarrow.schema(changed), version="2.6") as writer:
        for batch in file.iter_batches():
            columns = [column.cast(field.type) for column, field in zip(batch.columns, changed, strict=True)]
            writer.write_batch(pyarrow.record_batch(columns, schema=writer.schema))
    return copy, instants


def _refuse_fine_int96(path: str, label: str) -> None:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    coarse, fine = pyarrow.parquet.ParquetFile(path, coerce_int96_timestamp_unit="us"), pyarrow.parquet.ParquetFile(path)
    for place, field in enumerate(fine.schema_arrow):
        if not pyarrow.types.is_timestamp(field.type) or coarse.schema_arrow.field(place).type == field.type:
            continue
        batches = zip(coarse.iter_batches(columns=[field.name]), fine.iter_batches(columns=[field.name]), strict=True)
        for microseconds, nanoseconds in batches:
            whole, exact = (batch.column(0).cast(pyarrow.int64()).fill_null(0) for batch in (microseconds, nanoseconds))
            inside = pyarrow.compute.less(pyarrow.compute.abs(whole), _NANOSECOND_RANGE)
            lost = pyarrow.compute.not_equal(exact, pyarrow.compute.multiply(pyarrow.compute.if_else(inside, whole, 0), 1000))
            if pyarrow.compute.any(pyarrow.compute.and_(inside, lost)).as_py():
                raise SourceError(
                    f"{label}: the times of the column {field.name} (INT96) have nanoseconds, which would be lost. Write them as "
                    "timestamps of nanoseconds."
                )
