"""Options of readers that the platform applies itself, whoever reads: packing, encoding, and how texts spell dates and numbers."""

from collections.abc import Collection, Mapping
from typing import Any

from mlops_assets.sources.column_types import FORMAT_OPTIONS
from mlops_assets.sources.files import COMPRESSIONS

COMPRESSION, ENCODING = "compression", "encoding"
_SIGNS = ("quote", "escape", "comment", "decimal_separator", "thousands")


def check_options(reader: str, known: Collection[str], options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that is not among the `known` ones of `reader`, or whose value is none."""
    for name, value in options.items():
        if name == "new_line":
            raise ValueError("the option `new_line` is not supported: line ends are detected")
        if name not in known:
            raise ValueError(f"the option `{name}` has no effect on {reader}; there are: {', '.join(sorted(known))}")
        if name == ENCODING:
            _check_encoding(value)
        if name == COMPRESSION and value not in COMPRESSIONS:
            raise ValueError(f"the compression {value!r} is not supported; there are: {', '.join(COMPRESSIONS)}")
        if name in ("sep", "delim", "delimiter") and not 1 <= len(str(value).encode()) <= 4:
            raise ValueError(f"the option `{name}` is one to four characters long")
        if name in _SIGNS and len(str(value)) > 1:
            raise ValueError(f"the option `{name}` is one character")
    if options.get("decimal_separator", ".") == options.get("thousands"):
        raise ValueError("`decimal_separator` and `thousands` must be two signs")


def platform_options(*, is_text: bool) -> set[str]:
    """The options that the platform applies to files of a reader."""
    return {COMPRESSION, *FORMAT_OPTIONS, *([ENCODING] if is_text else [])}


def _check_encoding(name: object) -> None:
    try:
        "".encode(str(name))
    except LookupError as error:
        raise ValueError(f"{name!r} is no encoding of Python's codecs, such as utf-8, utf-16, latin-1 or cp1252") from error
