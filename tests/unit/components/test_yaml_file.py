"""Lines of fields in a YAML file, whatever its style, and keys that are given twice."""

from pathlib import Path

import pytest

from mlops_assets.components.yaml_file import YamlFile

TEXT = """# a comment
type: first
attributes:
  tables:
    orders: {key: [id], columns: {id: {type: bigint}}}
    parts:
      columns:
        - name
        - weight
        - {type: double, name: height}
---
type: second
attributes:
  name: other
  name: again
"""


@pytest.fixture
def file(tmp_path: Path) -> YamlFile:
    path = tmp_path / "defs.yaml"
    path.write_text(TEXT)
    return YamlFile(path)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("type",), 2),
        (("attributes", "tables", "orders", "columns", "id", "type"), 5),
        (("attributes", "tables", "parts", "columns", 1), 9),
        (("attributes", "tables", "parts", "columns", "height", "type"), 10),
        (("attributes", "tables", "parts", "keey"), 6),
        (("attributes", "tables", "a kind", "parts", "columns"), 7),
        (("attributes", "name"), 15),
        (("nothing",), 2),
    ],
)
def test_a_field_has_the_line_of_its_key(file: YamlFile, keys: tuple[str | int, ...], line: int) -> None:
    assert file.line(keys) == line


def test_a_key_that_is_given_twice_is_found(file: YamlFile) -> None:
    assert file.repeated_keys() == [(15, "name")]


def test_an_empty_file_has_one_line(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert YamlFile(path).line(("type",)) == 1
    assert YamlFile(path).documents == []
