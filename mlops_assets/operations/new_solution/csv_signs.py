"""Encoding of a CSV file, by its bytes, and the sample of its lines that shows the other signs."""

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from mlops_assets.core.errors import StackError
from mlops_assets.operations.new_solution.answers import Answers, Decision
from mlops_assets.operations.new_solution.csv_dialect import infer_dialect
from mlops_assets.operations.new_solution.origin import Origin
from mlops_assets.sources.csv_reader import as_utf8
from mlops_assets.sources.files import local_file

_CHUNK = 1 << 20
_FIRST_LINES = 500
_FIRST_BYTES = 1 << 21

_UNDEFINED_IN_CP1252 = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D))


def infer_signs(
    connection: duckdb.DuckDBPyConnection, origin: Origin, answers: Answers
) -> tuple[dict[str, Any], tuple[Decision, ...]]:
    """The options of the CSV reader that differ from its defaults, and the decisions behind them."""
    decisions: list[Decision] = []
    options: dict[str, Any] = {}
    with _unpacked(connection, origin) as path:
        encoding = _encoding(path, answers)
        if encoding is not None:
            decisions.append(encoding)
            options["encoding"] = encoding.value
        with tempfile.TemporaryDirectory() as folder:
            lines = _first_lines(path, Path(folder), options.get("encoding"))
            signs, found = infer_dialect(connection, lines, answers, label=origin.label)
    return {**options, **signs}, (*decisions, *found)


@contextmanager
def _unpacked(connection: duckdb.DuckDBPyConnection, origin: Origin) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(
            local_file(connection, origin.label, directory=Path.cwd(), folder=Path(folder), compression=None, in_place=False)
        )


def _encoding(path: Path, answers: Answers) -> Decision | None:
    """The encoding where it is not UTF-8 and no mark at the beginning of the file states it."""
    if answers.encoding is not None:
        try:
            codecs.lookup(answers.encoding)
        except LookupError as error:
            raise StackError(
                f"There is no encoding {answers.encoding!r}.", remedy="Name one of Python's: --encoding cp1252"
            ) from error
        return Decision(field="encoding", value=answers.encoding, reason="Given.")
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return None
    # Of ASCII letters in UTF-16 every second byte is 0.
    for name, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) // 2:
            return Decision(field="encoding", value=name, reason="Every second byte is 0.")
    decoder, position, undefined = codecs.getincrementaldecoder("utf-8")(), 0, False
    fault = None
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            undefined = undefined or any(byte in chunk for byte in _UNDEFINED_IN_CP1252)
            if fault is None:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    fault = position + error.start
            position += len(chunk)
    if fault is None:
        return None
    guess = "latin-1" if undefined else "cp1252"
    return Decision(
        field="encoding",
        value=guess,
        reason=f"Byte {fault:,} is no UTF-8; {guess} is what Windows and older programs of Western Europe write.",
        question="Which encoding has the file?",
        choices=("cp1252", "latin-1", "cp1250", "cp1251", "iso8859-15", "mac-roman"),
    )


def _first_lines(path: Path, folder: Path, encoding: str | None) -> Path:
    """A file with the first lines of `path`, in UTF-8."""
    head = folder / "head"
    with path.open("rb") as file:
        start = file.read(_FIRST_BYTES)
    # Not within a character, nor within a line.
    size = len(start) - len(start) % 4
    head.write_bytes(start if len(start) < _FIRST_BYTES else start[:size])
    text = Path(as_utf8(str(head), folder, encoding)).read_bytes()
    lines = text.splitlines(keepends=True)
    whole = lines[:-1] if len(start) == _FIRST_BYTES and len(lines) > 1 else lines
    target = folder / "lines.csv"
    target.write_bytes(b"".join(whole[:_FIRST_LINES]))
    return target
