"""Header of a CSV file, and the lines above it, by the rules of its rows."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.sources.extract import SourceError

_LONGEST_HEADER = 2_000_000


@dataclass(frozen=True)
class Dialect:
    """The signs of a CSV file."""

    delimiter: str
    quotation: str
    escape: str
    comment: str


def without_quotes_above(path: str, folder: Path, dialect: Dialect, skip: int) -> str:
    """`path`, or a copy whose first `skip` lines have a space for each quote: DuckDB skips lines within quotes as one."""
    if not skip or not dialect.quotation:
        return path
    above = _lines_above(_first_text(path), dialect, skip).text
    if dialect.quotation not in above:
        return path
    target = folder / "quotes_above"
    quotation = dialect.quotation.encode()
    with Path(path).open("rb") as file, target.open("wb") as copy:
        skipped = file.read(len(above.encode("utf-8", "surrogateescape")))
        copy.write(skipped.replace(quotation, b" " * len(quotation)))
        shutil.copyfileobj(file, copy)
    return str(target)


def _first_text(path: str) -> str:
    with Path(path).open("rb") as file:
        return file.read(_LONGEST_HEADER).decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class _Above:
    """The text above the first line that counts, the lines of it that DuckDB has to skip, and the comments, which do not count."""

    text: str
    skipped: int
    comments: int


def _lines_above(text: str, dialect: Dialect, skip: int) -> _Above:
    """What is above the first line that is neither skipped nor a comment nor empty."""
    here, skipped, comments = 0, 0, 0
    while here < len(text):
        end = _line_end(text, here)
        line = text[here:end].strip("\r\n")
        is_comment = bool(dialect.comment) and line.startswith(dialect.comment)
        if not is_comment and line and skipped >= skip:
            break
        here, skipped, comments = end, skipped + (not is_comment), comments + is_comment
    return _Above(text[:here], skipped, comments)


def read_header(path: str, label: str, dialect: Dialect, skip: int) -> tuple[list[str], int]:
    """The names in the header, and how many lines DuckDB has to skip before it: those to skip and empty ones; comments do not count."""
    text = _first_text(path)
    above = _lines_above(text, dialect, skip)
    here, skipped, comments = len(above.text), above.skipped, above.comments
    if here >= len(text):
        raise SourceError(f"{label} is empty: a CSV file begins with its header.")
    names = read_record(text, here, dialect)
    if names is None:
        raise SourceError(
            f"{label}, line {skipped + comments + 1}: a quoted name in the header does not end. Is the option `quote` right?"
        )
    if any("\udc80" <= letter <= "\udcff" for name in names for letter in name):
        raise SourceError(
            f"{label}, line {skipped + comments + 1}: the header is not UTF-8. State `options: {{encoding: ...}}`, such as latin-1."
        )
    return names, skipped


def _line_end(text: str, start: int) -> int:
    """Return the place where the line that begins at `start` ends, its end included."""
    match = re.compile(r"\r\n|\n|\r").search(text, start)
    return match.end() if match else len(text)


def read_record(text: str, start: int, dialect: Dialect) -> list[str] | None:
    """The values of the record that begins at `start`; None when a quotation does not end."""
    values, value, at = [], "", start
    fresh = True
    while at < len(text) and text[at] not in "\r\n":
        if fresh and dialect.quotation and text.startswith(dialect.quotation, at):
            quoted = _quoted(text, at + len(dialect.quotation), dialect)
            if quoted is None:
                return None
            value, at = quoted
            fresh = False
        elif text.startswith(dialect.delimiter, at):
            values.append(value)
            value, fresh, at = "", True, at + len(dialect.delimiter)
        else:
            value, fresh, at = value + text[at], False, at + 1
    return [*values, value]


def _quoted(text: str, start: int, dialect: Dialect) -> tuple[str, int] | None:
    """The text between quotes from `start` on, and where the closing one ends; None without a closing one."""
    value, at = "", start
    while at < len(text):
        if (
            dialect.escape
            and text.startswith(dialect.escape, at)
            and text[at + 1 : at + 2] in (dialect.quotation, dialect.escape)
        ):
            value, at = value + text[at + 1], at + 2
        elif text.startswith(dialect.quotation, at):
            return value, at + 1
        else:
            value, at = value + text[at], at + 1
    return None
