"""Arrow's types that DuckDB would read with less digits than they have, and those that they are given instead."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mlops_assets.sources.extract import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_PRECISION = 38


def exact_fields(fields: "Sequence[pa.Field]") -> "tuple[list[pa.Field], set[str]]":
    """`fields` with instants of nanoseconds as times without a zone and times of day as text, and the names of those instants."""
    import pyarrow as pa

    instants = {field.name for field in fields if _is_fine_instant(field.type)}
    times = {field.name for field in fields if pa.types.is_time64(field.type) and field.type.unit == "ns"}
    kinds = {**dict.fromkeys(instants, pa.timestamp("ns")), **dict.fromkeys(times, pa.string())}
    return [field.with_type(kinds[field.name]) if field.name in kinds else field for field in fields], instants


def refuse_inexact(fields: "Sequence[pa.Field]", label: str, wanted: Collection[str]) -> None:
    """Raise SourceError for a column of `wanted` with values that DuckDB cannot hold, by itself or in a list or structure."""
    import pyarrow as pa

    for field in fields:
        if field.name in wanted and (kind := _inexact(field.type)):
            raise SourceError(
                f"{label}: the column {field.name} has values of the type {kind}, which cannot be read. Write them as text."
            )
    if unequal := [field.name for field in fields if pa.types.is_null(field.type)]:
        raise SourceError(
            f"{label}: the column {unequal[0]} has no type. Give the schema of the table, such as `pa.string()` for texts."
        )


def _is_fine_instant(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz is not None


def _inexact(kind: "pa.DataType", *, nested: bool = False) -> "pa.DataType | None":
    import pyarrow as pa

    if pa.types.is_decimal256(kind) and kind.precision > LARGEST_PRECISION:
        return kind
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return kind
    if nested and (_is_fine_instant(kind) or (pa.types.is_time64(kind) and kind.unit == "ns")):
        return kind
    inner = [kind.field(number).type for number in range(kind.num_fields)]
    return next((inexact for inner_kind in inner if (inexact := _inexact(inner_kind, nested=True))), None)
