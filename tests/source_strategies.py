"""Hypothesis strategies of sources: values of all kinds, and files of all formats that hold them, each with what must come of it."""

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from source_values import REJECT, Json, of_boolean, of_bytes, of_moment, of_number, of_text, single

TYPES = ["boolean", "integer", "bigint", "double", "varchar", "date", "timestamp", "timestamptz"]
HOSTILE_NAMES = [
    *["_source", "_reason", "_row", "s", "line", "file_path", "filename", "row", "r", "select", "values", "_values", "given_0"],
    *[
        "Größe",
        'a"b',
        "a'b",
        "a b",
        "x,y",
        "é",
        "a;b|c",
        "two\nlines",
        "日本",
        "column0",
        "A",
        "a",
        "$.a",
        "a/b~c",
        "0",
        "__mlops_column_1",
    ],
]
TRICKY_TEXTS = [
    *[
        "NA",
        "null",
        "NULL",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-Infinity",
        "infinity",
        "true",
        "T",
        "Yes",
        "on",
        "2",
        "0.4",
        "1.0",
        "0.0",
        "-1",
    ],
    *[
        "1_000",
        "0x10",
        "1e3",
        "1E-3",
        "1e400",
        "1e-400",
        "0e999",
        "1,000",
        "1.5",
        "5.",
        ".5",
        ".",
        "+7",
        "007",
        " 8 ",
        "\t8",
        "7.0",
        "-0",
        "--1",
    ],
    *[
        "2147483647",
        "2147483648",
        "-2147483649",
        "9223372036854775807",
        "9223372036854775808",
        "9007199254740993",
        "9007199254740993.0",
    ],
    *[
        "9007199254740993.5",
        "12345678901234567890123456789",
        "1" + "0" * 39,
        "0.1234567890123456789",
        "1.000000000000000056e-01",
        "2.5",
    ],
    *[
        "2024-01-05",
        "24-01-05",
        "2024/1/5",
        "2024-13-05",
        "2024-02-30",
        "2024-01/05",
        "0024-01-05",
        "10000-01-01",
        "05.01.2024",
        "20240105",
    ],
    *[
        "2024-01-05 10:00",
        "2024-01-05T10:00:00Z",
        "2024-01-05 10:00:00+02:00",
        "2024-01-05 10:00:00.123456789",
        "2024-01-05 00:00:00",
    ],
    *[
        "2024-01-05T10:00:00.1234560",
        "2024-01-05 10:00:00+0530",
        "2024-01-05 10:00:00-03",
        "2024-01-05 10:00:00 UTC",
        "2024-01-05 24:00:00",
    ],
    *[
        "2024-01-05 10:00:00 Europe/Berlin",
        "2024-01-05 10:00:60",
        "2024-01-05 10:00:00+00:00",
        "2024-01-05T00:00:00+00",
        "2024-01-05Z",
    ],
    *[
        "2024-01-05 10:00:00+99",
        "2024-01-05 10:00:00 +02:00",
        "epoch",
        "now",
        "today",
        "0044-03-15 (BC)",
        "12:30",
        "#1",
        "'",
        '"',
        '""',
        "\\N",
        "\\",
    ],
]

plain_text = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
fitting = {
    "boolean": st.sampled_from(["true", "F", "yes", "0", "1"]),
    "integer": st.integers(-(2**31), 2**31 - 1).map(str),
    "bigint": st.integers(-(2**63) - 5, 2**63 + 5).map(str),
    "double": st.one_of(st.floats(allow_nan=True).map(repr), st.decimals(allow_nan=False, allow_infinity=False).map(str)),
    "varchar": plain_text,
    "date": st.dates().map(str),
    "timestamp": st.datetimes().map(str),
    "timestamptz": st.tuples(st.datetimes(), st.sampled_from(["", "Z", "+02:00", "-0330", "+05", " UTC"])).map(
        lambda pair: f"{pair[0]}{pair[1]}"
    ),
}


def texts(stated: str) -> st.SearchStrategy[str]:
    """Texts of a column of a stated type, most of them right."""
    return st.one_of(fitting[stated], fitting[stated], st.sampled_from(TRICKY_TEXTS), plain_text)


FAILED = object()
"""SQL cannot compute the value."""


def as_midnight(value: date) -> datetime:
    return datetime(value.year, value.month, value.day)


def as_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)


@dataclass(frozen=True)
class OfRead:
    """What is computed of a text whose spaces the reader may leave out: known once it was read."""

    base: str
    compute: Callable[[Any], Any]


@dataclass
class Delivery:
    """A table as YAML declares it, the function that writes it into a folder, and what must be read: values, or reasons by row."""

    table: dict[str, Any]
    accepted: dict[int, list[Any]] = field(default_factory=dict)
    rejected: dict[int, list[str]] = field(default_factory=dict)
    malformed: int = 0
    computed: list[tuple[str, str, Callable[[Any], Any], Callable[[Any, str], Any]]] = field(default_factory=list)

    def add(self, number: int, values: list[tuple[str, dict[str, Any], Any, str]]) -> None:
        """Expect of the row `number` what `values` (name, column, outcome, what is shown of a reject) say."""
        values = [*values, *self._computed_values(values)]
        reasons = []
        for name, column, outcome, shown in values:
            if outcome is FAILED:
                reasons.append(f"{name} cannot be computed")
            elif outcome is REJECT:
                reasons.append(f"{name}: {shown[:100]} is no {column['type']}" if shown is not None else f"{name}: ")
            elif outcome is None and column.get("required"):
                reasons.append(f"{name} is missing")
        if reasons:
            self.rejected[number] = reasons
        else:
            self.accepted[number] = [outcome for _, _, outcome, _ in values]

    def _computed_values(self, values: list[tuple[str, dict[str, Any], Any, str]]) -> list[tuple[str, dict[str, Any], Any, None]]:
        """The columns with an expression, of what the columns that are read have become."""
        outcomes = {name: None if outcome is REJECT else outcome for name, _, outcome, _ in values}
        computed = []
        for name, base, function, rule in self.computed:
            column, value = self.table["columns"][name], outcomes[base]
            result = None if value is None else function(value)
            outcome = result if result is None or result is FAILED else rule(result, column["type"])
            if isinstance(value, Json) and outcome is not None and outcome not in (FAILED, REJECT):
                outcome = OfRead(base, lambda read, f=function, r=rule, stated=column["type"]: r(f(read), stated))
            computed.append((name, column, outcome, None))
        return computed


def plus_one(limit: int) -> Callable[[int], Any]:
    return lambda value: value + 1 if value < limit else FAILED


EXPRESSIONS: dict[str, list[tuple[str, Callable[[Any], Any], Callable[[Any, str], Any]]]] = {
    # type of the column that is read: SQL, the same in Python, the rule of its result
    "boolean": [("NOT {}", lambda value: not value, of_boolean)],
    "integer": [("{} + 1", plus_one(2**31 - 1), of_number), ("{} % 2 = 0", lambda value: value % 2 == 0, of_boolean)],
    "bigint": [("{} + 1", plus_one(2**63 - 1), of_number), ("CAST({} AS VARCHAR) -- text", str, of_text)],
    "double": [("{} > 0.5", lambda value: value > 0.5, of_boolean), ("{} / 2", lambda value: value / 2, of_number)],
    "varchar": [
        ("length({})", len, of_number),
        ("'x' || {}", lambda value: "x" + value, of_text),
        ("CAST('x' || {} AS INTEGER)", lambda value: FAILED, of_number),
    ],
    "date": [("year({})", lambda value: value.year, of_number), ("CAST({} AS TIMESTAMP)", as_midnight, of_moment)],
    "timestamp": [("CAST({} AS DATE)", lambda value: value.date(), of_moment), ("timezone('UTC', {})", as_utc, of_moment)],
    "timestamptz": [("timezone('UTC', {})", lambda value: value.replace(tzinfo=None), of_moment)],
}


def add_computed(draw: Any, delivery: Delivery) -> None:
    """Add up to two columns with an expression over a column that is read."""
    for number, (base, column) in enumerate(draw(st.lists(st.sampled_from(read_columns(delivery)), max_size=2))):
        sql, function, rule = draw(st.sampled_from(EXPRESSIONS[column["type"]]))
        name = f"e{number}"
        delivery.table["columns"][name] = {
            "type": draw(st.sampled_from(TYPES)),
            "expression": sql.format(base),
            "required": draw(st.booleans()),
        }
        delivery.computed.append((name, base, function, rule))


@st.composite
def declared(draw: Any, **table: Any) -> Delivery:
    """A table with an identifier and some more columns, which may have other names in the source."""
    names = draw(st.lists(st.sampled_from(HOSTILE_NAMES), min_size=1, max_size=5, unique=True))
    columns: dict[str, Any] = {"n": {"type": "integer", "source": "id", "required": True}}
    for number, name in enumerate(names):
        columns[f"c{number}"] = {"type": draw(st.sampled_from(TYPES)), "source": name, "required": draw(st.booleans())}
    return Delivery({"description": "d", "columns": columns, **table})


def read_columns(delivery: Delivery) -> list[tuple[str, dict[str, Any]]]:
    """The columns besides the identifier."""
    return [(name, column) for name, column in delivery.table["columns"].items() if name != "n"]


def packed(draw: Any, name: str) -> str:
    """A name for the file, with the ending of its packing."""
    return name + draw(st.sampled_from(["", "", "", ".gz", ".zip", ".ZIP", ".bz2", ".xz", ".zst"]))


def write(path: Path, content: bytes) -> None:
    """Write `content` as the ending of `path` says."""
    match path.suffix.lower():
        case ".gz":
            path.write_bytes(gzip.compress(content))
        case ".bz2":
            path.write_bytes(bz2.compress(content))
        case ".xz":
            path.write_bytes(lzma.compress(content))
        case ".zst":
            path.write_bytes(pa.Codec("zstd").compress(content, asbytes=True))
        case ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("__MACOSX/._data.csv", b"\x00\x05")
                archive.writestr("folder/data.csv", content)
        case _:
            path.write_bytes(content)


@dataclass
class CsvStyle:
    delimiter: str
    quotation: str
    always: bool
    line_ends: list[str]
    blank_lines: int
    encoding: str


@st.composite
def csv_styles(draw: Any) -> CsvStyle:
    return CsvStyle(
        delimiter=draw(st.sampled_from([",", ";", "\t", "|", "||", "::", "§"])),
        quotation=draw(st.sampled_from(['"', '"', "'"])),
        always=draw(st.booleans()),
        line_ends=draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"], ["\r\n", "\r"], ["\n", "\r\n", "\r"]])),
        blank_lines=draw(st.sampled_from([0, 0, 0, 1, 3])),
        encoding=draw(
            st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1", "cp1252", "shift_jis"])
        ),
    )


def csv_field(text: str, style: CsvStyle) -> str:
    special = {*style.delimiter, style.quotation, "\r", "\n"}
    if style.always or special & {*text} or text != text.strip() or not text:
        return style.quotation + text.replace(style.quotation, style.quotation * 2) + style.quotation
    return text


def encodable(text: str, encoding: str) -> str:
    """`text` without what the encoding cannot spell and spell back."""
    kept = []
    for letter in text:
        try:
            if letter.encode(encoding).decode(encoding) == letter:
                kept.append(letter)
        except UnicodeError:
            continue
    return "".join(kept)


@st.composite
def csv_deliveries(draw: Any, folder: Path) -> Delivery:
    """A table of one to three CSV files of one dialect."""
    style = draw(csv_styles())
    options: dict[str, Any] = {"delim": style.delimiter, "quote": style.quotation}
    if style.encoding in ("utf-16-le", "latin-1", "cp1252", "shift_jis"):
        options["encoding"] = style.encoding
    delivery = draw(declared(format="csv", null_strings=["NA"], options=options))
    columns = read_columns(delivery)
    for _, column in columns:
        column["source"] = encodable(column["source"], style.encoding).strip()
    by_source = {column["source"]: (name, column) for name, column in columns if column["source"]}
    columns = list(by_source.values())
    delivery.table["columns"] = {"n": delivery.table["columns"]["n"], **dict(columns)}
    if columns:
        add_computed(draw, delivery)
    files, number = [], 0
    for position in range(draw(st.integers(1, 3))):
        order = draw(st.permutations([("n", delivery.table["columns"]["n"]), ("", {"source": "unused"}), *columns]))
        lines = [style.delimiter.join(csv_field(column["source"], style) for _, column in order)]
        for _ in range(draw(st.integers(0, 5))):
            if draw(st.integers(0, 9)) == 0:
                lines.append(style.delimiter.join(["1"] * (len(order) + draw(st.sampled_from([-1, 1, 2])))))
                delivery.malformed += 1
                continue
            values: dict[str, str] = {"n": str(number), "": "x"}
            outcomes = []
            for name, column in columns:
                text = encodable(draw(texts(column["type"])), style.encoding)
                values[name] = text
                outcome = None if text in ("", "NA") else of_text(text, column["type"])
                outcomes.append((name, column, outcome, text))
            lines.append(style.delimiter.join(csv_field(values[name], style) for name, _ in order))
            delivery.add(number, outcomes)
            number += 1
        ends = [draw(st.sampled_from(style.line_ends)) for _ in lines]
        if draw(st.booleans()):
            ends[-1] = ""
        text = draw(st.sampled_from(style.line_ends)) * style.blank_lines + "".join(map(str.__add__, lines, ends))
        name = packed(draw, f"{position}.csv")
        write(folder / name, text.encode(style.encoding))
        files.append(name)
    delivery.table["files"] = files
    return delivery


numbers = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: str(number).lower().replace("e+", "e")),
    st.sampled_from(
        ["1.10", "1e3", "-0", "0.0", "1E400", "12345678901234567890.5", "9007199254740993.0", "0.00001", "1.0", "0", "1"]
    ),
).filter(lambda text: json_valid(text))


def json_valid(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


nested = st.recursive(
    st.one_of(numbers, plain_text.map(json.dumps), st.sampled_from(["true", "null", '"\\u00e9\\/"'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(plain_text, inner, max_size=2).map(
            lambda items: "{" + ",".join(f"{json.dumps(key)}: {item}" for key, item in items.items()) + "}"
        ),
    ),
    max_leaves=5,
).filter(lambda text: text[0] in "[{")


@st.composite
def json_values(draw: Any, stated: str) -> tuple[str, Any, str | None]:
    """A JSON value as text, what it becomes, and what is shown of it."""
    kind = draw(st.sampled_from(["text", "text", "number", "number", "boolean", "null", "nested"]))
    if kind == "text":
        text = draw(texts(stated))
        return json.dumps(text, ensure_ascii=draw(st.booleans())), of_text(text, stated), text
    if kind == "number":
        text = draw(numbers)
        return text, of_text(text, stated), text
    if kind == "boolean":
        text = draw(st.sampled_from(["true", "false"]))
        return text, of_text(text, stated), text
    if kind == "null":
        return "null", None, None
    text = draw(nested)
    return text, Json(text) if stated == "varchar" else REJECT, None


@st.composite
def json_deliveries(draw: Any, folder: Path) -> Delivery:
    """A table of one to three JSON files, arrays or lines."""
    delivery = draw(declared(format="json"))
    columns = read_columns(delivery)
    for _, column in columns:
        column["optional"] = True
    add_computed(draw, delivery)
    files, number = [], 0
    for position in range(draw(st.integers(1, 3))):
        lines = []
        is_array = draw(st.booleans())
        gap = draw(st.sampled_from(["", " "]))
        for _ in range(draw(st.integers(0, 5))):
            if draw(st.integers(0, 9)) == 0:
                broken = ["5", '"x"', "[1, 2]", "null", '{"id": 1, "id": 2}']
                lines.append(
                    draw(
                        st.sampled_from(
                            broken if is_array else [*broken, '{"id": 2', "{'id': 3}", "#", '{"id": 1} {"id": 2}', "{x}"]
                        )
                    )
                )
                delivery.malformed += 1
                continue
            items, outcomes = [f'"id":{gap}{number}'], []
            for name, column in columns:
                if draw(st.integers(0, 5)) == 0:
                    outcomes.append((name, column, None, None))
                    continue
                text, outcome, shown = draw(json_values(column["type"]))
                items.append(f"{json.dumps(column['source'])}:{gap}{text}")
                outcomes.append((name, column, outcome, shown))
            lines.append("{" + f",{gap}".join(draw(st.permutations(items))) + "}")
            delivery.add(number, outcomes)
            number += 1
        end = draw(st.sampled_from(["\n", "\r\n"]))
        if is_array:
            text = "[" + f",{end}".join(lines) + "]"
        else:
            if lines and lines[0].startswith("["):
                lines.insert(0, "")
                lines[0], lines[1] = "#", lines[1]
                delivery.malformed += 1
            text = "".join(line + end + draw(st.sampled_from(["", "", end])) for line in lines)
        name = packed(draw, f"{position}.json")
        write(folder / name, text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))))
        files.append(name)
    delivery.table["files"] = files
    return delivery


class NearFloat(str):
    """The text of a float32, compared by its value."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and single(float(self)) == single(float(other))

    __hash__ = str.__hash__


def of_single(value: float, stated: str) -> Any:
    """What a float32 becomes; as text it may have fewer digits."""
    outcome = of_number(value, stated)
    return NearFloat(outcome) if isinstance(outcome, str) else outcome


def at_nanoseconds(nanoseconds: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(microseconds=nanoseconds // 1000)


EPOCH_UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@st.composite
def arrow_columns(draw: Any, *, is_old: bool) -> tuple[pa.DataType, st.SearchStrategy[Any], Any]:
    """An Arrow type, values of it, and the function (value, stated type) -> what it becomes and what is shown of it.

    Times of an old file are written as INT96, which have no zone.
    """
    kind = draw(
        st.sampled_from(
            ["int", "float", "decimal", "bool", "text", "bytes", "category", "date", "timestamp", "time", "nested", "decimals"]
        )
    )

    def shown_as_text(rule: Any) -> Any:
        return lambda value, stated: (rule(value, stated), None)

    match kind:
        case "int":
            bits, signed = draw(st.sampled_from([8, 16, 32, 64])), draw(st.booleans())
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            values = st.one_of(st.integers(low, high), st.sampled_from([0, 1, 2, high, low]))
            return getattr(pa, f"{'' if signed else 'u'}int{bits}")(), values, shown_as_text(of_number)
        case "float":
            width = draw(st.sampled_from([32, 64]))
            values = st.one_of(
                st.floats(width=width), st.sampled_from([0.0, 1.0, 2.0, 0.4, 2.5, -0.0, 1e20]), st.integers(-5, 5).map(float)
            )
            if width == 32:
                values = values.map(single)
            return getattr(pa, f"float{width}")(), values, shown_as_text(of_single if width == 32 else of_number)
        case "decimal":
            precision = draw(st.integers(1, 38))
            scale = draw(st.integers(0, precision))
            values = st.one_of(
                st.integers(-(10**precision) + 1, 10**precision - 1), st.sampled_from([0, min(10**scale, 10**precision - 1)])
            ).map(lambda number: Decimal(f"{number}E-{scale}"))
            return (
                pa.decimal128(precision, scale),
                values,
                lambda value, stated: (of_number(value, stated, text=f"{value:.{scale}f}"), None),
            )
        case "bool":
            return pa.bool_(), st.booleans(), shown_as_text(of_boolean)
        case "text":
            values = st.one_of(plain_text, st.sampled_from(TRICKY_TEXTS))
            return (
                draw(st.sampled_from([pa.string(), pa.large_string()])),
                values,
                lambda value, stated: (of_text(value, stated), value),
            )
        case "category":
            values = st.sampled_from(["1", "0", "true", "x", "2024-01-05", "2.5"])
            return pa.dictionary(pa.int8(), pa.string()), values, lambda value, stated: (of_text(value, stated), value)
        case "bytes":
            values = st.one_of(
                st.binary(max_size=6), plain_text.map(str.encode), st.sampled_from(["Zürich", "5", "1.5", "true"]).map(str.encode)
            )
            return pa.binary(), values, shown_as_text(of_bytes)
        case "date":
            return pa.date32(), st.dates(), shown_as_text(of_moment)
        case "time":
            values = st.times()
            rule = lambda value, stated: (of_text(str_time(value), stated) if stated == "varchar" else REJECT, None)  # noqa: E731
            return pa.time64("us"), values, rule
        case "timestamp":
            unit, zone = draw(st.sampled_from(list(EPOCH_UNITS))), draw(st.sampled_from([None, "UTC", "Europe/Berlin"]))
            if is_old:
                unit, zone = "us" if unit == "ns" else unit, None
            step = EPOCH_UNITS[unit]
            days = st.integers(-10_000, 40_000).map(lambda day: day * 86_400 * 10**9 // step)
            values = st.one_of(days, st.integers(-(10**18) // step, 4 * 10**18 // step))

            def rule(value: int, stated: str) -> tuple[Any, None]:
                nanoseconds = value * step
                moment = at_nanoseconds(nanoseconds)
                return of_moment(moment.replace(tzinfo=UTC) if zone else moment, stated, nanoseconds=nanoseconds % 1000), None

            return pa.timestamp(unit, zone), values, rule
        case "decimals":
            values = st.lists(st.integers(-(10**6), 10**6).map(lambda number: Decimal(number) / 100), max_size=3)
            rule = lambda value, stated: (  # noqa: E731
                Json(json.dumps([f"{number:.2f}" for number in value])) if stated == "varchar" else REJECT,
                None,
            )
            return pa.list_(pa.decimal128(10, 2)), values, rule
        case _:
            values = st.lists(st.integers(-5, 5), max_size=3)
            rule = lambda value, stated: (Json(json.dumps(value)) if stated == "varchar" else REJECT, None)  # noqa: E731
            return pa.list_(pa.int32()), values, rule


def str_time(value: Any) -> str:
    text = value.isoformat()
    return text.rstrip("0") if "." in text else text


@st.composite
def parquet_deliveries(draw: Any, folder: Path) -> Delivery:
    """A table of one to three Parquet files, whose columns have other types in each."""
    delivery = draw(declared(format="parquet"))
    columns = read_columns(delivery)
    # DuckDB renames the second of two columns whose names differ by case alone.
    delivery.table["columns"] = {
        name: column for name, column in delivery.table["columns"].items() if column.get("source") != "A"
    }
    columns = read_columns(delivery)
    if columns:
        add_computed(draw, delivery)
    files, number = [], 0
    for position in range(draw(st.integers(1, 3))):
        count, is_old = draw(st.integers(0, 5)), draw(st.booleans())
        arrays: dict[str, Any] = {"id": pa.array(range(number, number + count), pa.int32())}
        rows: list[list[Any]] = [[] for _ in range(count)]
        for name, column in columns:
            kind, values, rule = draw(arrow_columns(is_old=is_old))
            drawn = [draw(st.one_of(st.none(), values, values, values)) for _ in range(count)]
            array = pa.array(drawn, kind.value_type if pa.types.is_dictionary(kind) else kind)
            arrays[column["source"]] = array.cast(kind) if pa.types.is_dictionary(kind) else array
            for row, value in zip(rows, drawn, strict=True):
                outcome, shown = (None, None) if value is None else rule(value, column["type"])
                row.append((name, column, outcome, shown))
        for row in rows:
            delivery.add(number, row)
            number += 1
        name = f"{position}.parquet"
        path = folder / draw(st.sampled_from(["", "id=9", "c0=2024-01-01"])) / name
        path.parent.mkdir(exist_ok=True)
        order = draw(st.permutations(list(arrays)))
        pq.write_table(
            pa.table({key: arrays[key] for key in order}),
            path,
            compression=draw(st.sampled_from(["snappy", "zstd", "none"])),
            use_deprecated_int96_timestamps=is_old,
        )
        files.append(str(path.relative_to(folder)))
    delivery.table["files"] = files
    return delivery


def _numeric(value: str, stated: str) -> Any:
    return None if value == "NaN" else of_text(value, stated)


def numeric_text(number: Decimal) -> str:
    return f"{number:f}"


def _bytea(value: bytes) -> str:
    return f"'\\x{value.hex()}'"


POSTGRES: dict[str, tuple[st.SearchStrategy[Any], Any, Any]] = {
    # type: values, SQL of a value, rule
    "smallint": (st.integers(-(2**15), 2**15 - 1), str, of_number),
    "integer": (st.integers(-(2**31), 2**31 - 1), str, of_number),
    "bigint": (st.one_of(st.integers(-(2**63) + 1, 2**63 - 1), st.sampled_from([0, 1, 2**53 + 1])), str, of_number),
    "numeric": (
        st.one_of(
            st.decimals(-(10**30), 10**30, allow_nan=False).map(numeric_text),
            st.sampled_from(
                [
                    "NaN",
                    "1.10",
                    "9007199254740993",
                    "0.1234567890123456789",
                    "1.000",
                    "12345678901234567890123456789012345678901234.5",
                ]
            ),
        ),
        lambda value: f"'{value}'",
        _numeric,
    ),
    "numeric(12,3)": (
        st.one_of(st.integers(-(10**11), 10**11).map(lambda number: f"{Decimal(number) / 1000:.3f}"), st.just("NaN")),
        lambda value: f"'{value}'",
        _numeric,
    ),
    "real": (st.floats(width=32).map(single), lambda value: f"'{value!r}'", of_single),
    "double precision": (st.floats(), lambda value: f"'{value!r}'", of_number),
    "boolean": (st.booleans(), str, of_boolean),
    "text": (st.one_of(plain_text, st.sampled_from(TRICKY_TEXTS)), None, of_text),
    "bytea": (st.one_of(st.binary(max_size=5), st.just("Zürich".encode())), _bytea, of_bytes),
    "date": (st.dates(date(1, 1, 1), date(9999, 12, 31)), lambda value: f"'{value}'", of_moment),
    "timestamp": (st.datetimes(), lambda value: f"'{value}'", of_moment),
    "timestamptz": (
        st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)),
        lambda value: f"'{value}'",
        of_moment,
    ),
    "integer[]": (
        st.lists(st.integers(-5, 5), max_size=3),
        lambda value: f"'{{{','.join(map(str, value))}}}'",
        lambda value, stated: of_text("{" + ",".join(map(str, value)) + "}", stated),
    ),
    "time": (
        st.times(),
        lambda value: f"'{value}'",
        lambda value, stated: of_text(str_time(value), stated) if stated == "varchar" else REJECT,
    ),
}


def sql_text(value: str) -> str:
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


@st.composite
def postgres_deliveries(draw: Any, variable: str) -> tuple[Delivery, str]:
    """A table of a query on Postgres, and the SQL that makes what it reads."""
    delivery = draw(declared())
    columns = read_columns(delivery)
    add_computed(draw, delivery)
    kinds = [draw(st.sampled_from(list(POSTGRES))) for _ in columns]
    rows = []
    for number in range(draw(st.integers(0, 6))):
        cells, outcomes = [str(number)], []
        for (name, column), kind in zip(columns, kinds, strict=True):
            values, sql, rule = POSTGRES[kind]
            value = draw(st.one_of(st.none(), values, values, values))
            cells.append("NULL" if value is None else f"CAST({(sql or sql_text)(value)} AS {kind})")
            outcome = None if value is None else rule(value, column["type"])
            outcomes.append((name, column, outcome, value if kind == "text" else None))
        rows.append(f"({', '.join(cells)})")
        delivery.add(number, outcomes)
    fields = ", ".join(f"{quoted(column['source'])} {kind}" for (_, column), kind in zip(columns, kinds, strict=True))
    made = f"DROP TABLE IF EXISTS t; CREATE TABLE t (id integer, {fields});"
    if rows:
        made += f" INSERT INTO t VALUES {', '.join(rows)};"
    delivery.table["query"] = {"database": "postgres", "url_variable": variable, "sql": "SELECT * FROM t -- all"}
    return delivery, made


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
