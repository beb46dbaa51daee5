"""Files of events in every format that a source may have, in many spellings of the same values, and the tables that declare them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from source_strategies import write

ZONE = ZoneInfo("Europe/Berlin")
COLUMNS: dict[str, Any] = {
    "number": {"type": "integer", "required": True},
    "place": {"type": "varchar", "optional": True},
    "happened": {"type": "timestamptz", "required": True},
    "known": {"type": "timestamptz", "required": True},
    "value": {"type": "double", "optional": True},
    "day": {"type": "date"},
}


@dataclass(frozen=True)
class Event:
    """Something that happened at a place and became known later. Of one that is `broken` the number is no number."""

    number: int
    place: str | None
    happened: datetime
    known: datetime
    value: float | None
    broken: bool = False

    @property
    def day(self) -> date:
        return self.known.astimezone(ZONE).date()


@dataclass(frozen=True)
class Style:
    """How a file spells its rows.

    `times` are instants (`utc`, `zone`: with the offset of the zone) or `wall` clock times of the zone, which an expression of the table
    turns into instants. `binary` is the type of instants in Parquet.
    """

    format: str
    packing: str
    encoding: str
    times: str
    binary: str
    has_day: bool
    has_numbers_as_text: bool
    has_nulls: bool
    files: int

    @property
    def extension(self) -> str:
        return ".parquet" if self.format == "parquet" else f".{self.format}{self.packing}"


STYLES = st.builds(
    Style,
    format=st.sampled_from(["csv", "parquet", "json"]),
    packing=st.sampled_from(["", "", ".gz", ".zst", ".zip"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    times=st.sampled_from(["utc", "zone", "wall"]),
    binary=st.sampled_from(["us", "ns", "int96", "text"]),
    has_day=st.booleans(),
    has_numbers_as_text=st.booleans(),
    has_nulls=st.booleans(),
    files=st.integers(1, 3),
)


def write_events(events: Sequence[Event], folder: Path, style: Style) -> dict[str, Any]:
    """Write the events into `folder` and return the table as YAML declares it, without its partitions."""
    moments = [moment for event in events for moment in (event.happened, event.known)]
    if style.times == "wall" and any(_wall(moment).replace(tzinfo=ZONE).astimezone(UTC) != moment for moment in moments):
        # The hour that is there twice, as the clock is set back.
        style = replace(style, times="zone")
    names = []
    for part in range(style.files):
        path = folder / f"{part}{style.extension}"
        rows = [_row(event, style) for event in events[part :: style.files]]
        if style.format == "parquet":
            _write_parquet(rows, path, style)
        else:
            text = _csv(rows, style) if style.format == "csv" else _json(rows, style, is_array=part == 1)
            write(path, text.encode(style.encoding))
        names.append(path.name)
    columns = dict(COLUMNS)
    if style.times == "wall":
        for name in ("happened", "known"):
            columns[f"{name}_wall"] = {"type": "timestamp", "source": name}
            columns[name] = {"type": "timestamptz", "required": True, "expression": f"timezone('{ZONE.key}', {name}_wall)"}
    if not style.has_day:
        columns["day"] = {"type": "date", "expression": f"CAST(timezone('{ZONE.key}', known) AS DATE)"}
    return {"description": "Events.", "columns": columns, "files": names, "format": style.format, "null_strings": ["NA"]}


def _wall(moment: datetime) -> datetime:
    return moment.astimezone(ZONE).replace(tzinfo=None)


def _row(event: Event, style: Style) -> dict[str, Any]:
    row = {
        "number": event.number,
        "place": event.place,
        "happened": event.happened,
        "known": event.known,
        "value": event.value,
    }
    return {**row, "day": event.day, "broken": event.broken} if style.has_day else {**row, "broken": event.broken}


def _number(row: dict[str, Any]) -> str:
    return f"{row['number']}x" if row["broken"] else str(row["number"])


def _time(moment: datetime, style: Style, *, short: bool) -> str:
    match style.times:
        case "utc":
            return moment.replace(tzinfo=None).isoformat(sep=" ") + ("" if short else "Z")
        case "zone":
            return moment.astimezone(ZONE).isoformat()
    return _wall(moment).isoformat(sep=" ")


def _texts(row: dict[str, Any], style: Style) -> dict[str, str | None]:
    """The values of a row as texts, null where there is none."""
    texts: dict[str, str | None] = {"number": _number(row), "place": row["place"]}
    texts |= {name: _time(row[name], style, short=row["number"] % 2 == 0) for name in ("happened", "known")}
    texts["value"] = None if row["value"] is None else repr(row["value"])
    return texts | ({"day": row["day"].isoformat()} if "day" in row else {})


def _csv(rows: Sequence[dict[str, Any]], style: Style) -> str:
    names = [name for name in COLUMNS if name != "day" or style.has_day]
    null = "NA" if style.has_nulls else ""
    lines = [names, *([_texts(row, style)[name] or null for name in names] for row in rows)]
    return "".join(",".join(line) + "\r\n" for line in lines)


def _json(rows: Sequence[dict[str, Any]], style: Style, *, is_array: bool) -> str:
    objects = []
    for row in rows:
        values: dict[str, Any] = _texts(row, style)
        if not style.has_numbers_as_text:
            if not row["broken"]:
                values["number"] = row["number"]
            if row["value"] is not None and math.isfinite(row["value"]):
                values["value"] = row["value"]
        objects.append(json.dumps({name: value for name, value in values.items() if value is not None or style.has_nulls}))
    return "[" + ",\n".join(objects) + "]" if is_array else "".join(f"{text}\n" for text in objects)


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path, style: Style) -> None:
    as_text = style.has_numbers_as_text or any(row["broken"] for row in rows)
    arrays = {
        "number": pa.array([_number(row) if as_text else row["number"] for row in rows], pa.string() if as_text else pa.int64()),
        "place": pa.array([row["place"] for row in rows], pa.string()),
        "value": pa.array([row["value"] for row in rows], pa.float64()),
    }
    if style.has_nulls:
        arrays["place"] = arrays["place"].dictionary_encode()
    for name in ("happened", "known"):
        moments = [row[name] for row in rows]
        if style.binary == "text":
            arrays[name] = pa.array([_time(moment, style, short=False) for moment in moments], pa.string())
            continue
        unit = "ns" if style.binary == "ns" else "us"
        zone = {"utc": "UTC", "zone": ZONE.key, "wall": None}[style.times]
        arrays[name] = pa.array([_wall(moment) if zone is None else moment for moment in moments], pa.timestamp(unit, zone))
    if style.has_day:
        arrays["day"] = pa.array([row["day"] for row in rows], pa.date32())
    is_old = style.binary == "int96"
    pq.write_table(pa.table(arrays), path, use_deprecated_int96_timestamps=is_old, row_group_size=3)
