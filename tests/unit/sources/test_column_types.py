"""Values that must stay what they are, and forms that the YAML file states."""

from pathlib import Path
from typing import Any

import pytest
from file_rows import read


@pytest.mark.parametrize(
    ("kind", "options", "text", "expected"),
    [
        ("date", {"dateformat": "%d.%m.%Y"}, "05.01.2024", "2024-01-05"),
        ("date", {"dateformat": "%d.%m.%Y"}, "2024-01-05", None),
        ("date", {"dateformat": "%d.%m.%Y"}, "05.01.24", None),
        ("timestamp", {"timestampformat": "%d.%m.%Y %H:%M"}, "05.01.2024 10:30", "2024-01-05 10:30:00"),
        ("timestamptz", {"timestampformat": "%d.%m.%Y %H:%M"}, "05.01.2024 10:30", "2024-01-05 10:30:00"),
        ("timestamptz", {"timestampformat": "%d.%m.%Y %H:%M %z"}, "05.01.2024 10:30 +0200", "2024-01-05 08:30:00"),
        ("double", {"decimal_separator": ","}, "1,5", "1.5"),
        ("double", {"decimal_separator": ","}, "1.5", None),
        ("double", {"decimal_separator": ",", "thousands": "."}, "-1.234.567,5", "-1234567.5"),
        ("double", {"decimal_separator": ",", "thousands": "."}, "1.23,5", None),
        ("bigint", {"thousands": " "}, "1 234", "1234"),
    ],
)
def test_formats_that_the_yaml_file_states(
    tmp_path: Path, kind: str, options: dict[str, Any], text: str, expected: str | None
) -> None:
    (tmp_path / "f.csv").write_text(f"a;\n{text};\n")
    declared = {"a": {"type": kind}}
    shown = {
        "a": declared["a"],
        "shown": {"type": "varchar", "expression": "a" if kind != "timestamptz" else "a AT TIME ZONE 'UTC'"},
    }
    [row] = read(tmp_path, "f.csv", columns=shown, options={"delim": ";", **options})
    assert row == (f"a: {text} is no {kind}",) if expected is None else row[1] == expected
