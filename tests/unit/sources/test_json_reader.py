"""JSON files of any form, and values of several kinds."""

import json
from pathlib import Path

from file_rows import read


def test_json_by_the_line_and_in_an_array(tmp_path: Path) -> None:
    columns = {"a": {"type": "varchar"}, "b": {"type": "double", "optional": True}}
    lines = (
        '{"a": 1.10, "b": 1}\n\n{"a": 9007199254740993}\r\n{"a": 2,\n{"a": {"x": [1.10, "1.10"]}, "b": 1.5}\n{"a": 1, "a": 2}\n'
    )
    (tmp_path / "f.json").write_text(lines)
    rows = [("1.10", 1.0), ("9007199254740993", None), ('{"x":[1.10,"1.10"]}', 1.5), ("has a key twice",), ("is no JSON",)]
    assert sorted(map(str, read(tmp_path, "f.json", format="json", columns=columns))) == sorted(map(str, rows))
    (tmp_path / "f.json").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{"a": 3}')
    rows = read(tmp_path, "f.json", format="json", columns=columns)
    assert rows[:2] == [("1", None), ("3", None)]
    assert rows[2][0].startswith("line 2: ")
    (tmp_path / "f.json").write_text('[\n{"a": 1e3, "b": 2},\n 5\n]')
    assert read(tmp_path, "f.json", format="json", columns=columns) == [("1e3", 2.0), ("is no JSON object",)]
    (tmp_path / "f.json").write_text('{\n"a": 1\n}\n{\n"a": "2"\n}')
    assert read(tmp_path, "f.json", format="json", columns=columns) == [("1", None), ("2", None)]
    (tmp_path / "f.json").write_text('{"b": 6.868531932247569e+16, "a": 1}\n{"b": 9007199254740993.0}')
    rows = read(tmp_path, "f.json", format="json", columns=columns)
    assert rows == [("1", 6.868531932247569e16), ("b: 9007199254740993.0 is no double",)]
    (tmp_path / "f.json").write_text("")
    assert read(tmp_path, "f.json", format="json", columns=columns) == []


def test_a_late_value_of_another_kind_costs_nothing(tmp_path: Path) -> None:
    lines = [json.dumps({"a": number}) for number in range(30_000)] + ['{"a": 1.5, "late": 1}', '{"a": "x"}']
    (tmp_path / "f.json").write_text("\n".join(lines))
    rows = read(tmp_path, "f.json", format="json", columns={"a": {"type": "double"}})
    assert rows[-2:] == [(1.5,), ("a: x is no double",)]
    assert len(rows) == 30_002
