"""The message for a code location that Dagster could not load, from the errors that Dagster makes of real ones."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info

from mlops_assets.local.load_errors import describe_load_error


def answer(path: Path) -> dict[str, Any]:
    """What GraphQL answers of the error that the file `path` raises below a layer of Dagster."""
    try:
        try:
            runpy.run_path(str(path))
        except Exception as error:
            raise RuntimeError("Error occurred during the loading of Dagster definitions") from error
    except RuntimeError as error:
        info = serializable_error_info_from_exc_info((type(error), error, error.__traceback__))
    causes: list[SerializableErrorInfo] = []
    while (cause := (causes or [info])[-1].cause) is not None:
        causes.append(cause)
    return {
        "message": info.message,
        "stack": info.stack,
        "causes": [{"message": cause.message, "stack": cause.stack} for cause in causes],
    }


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os\nimport no_such_module\n", "definitions.py:2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken():\n    return {}['key']\n\nbroken()\n", "definitions.py:2: KeyError: 'key'"),
    ],
)
def test_the_cause_is_told_with_its_place_in_the_project(code: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "definitions.py"
    path.write_text(code)
    assert describe_load_error(answer(path), tmp_path) == told


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "definitions.py"
    path.write_text("one = 1\ntwo = (\n")
    message = describe_load_error(answer(path), tmp_path)
    assert f'File "{path}", line 2' in message
    assert "SyntaxError: '(' was never closed" in message


def test_an_error_outside_the_project_is_told_without_a_place(tmp_path: Path) -> None:
    path = tmp_path / "definitions.py"
    path.write_text("raise ValueError('wrong')\n")
    assert describe_load_error(answer(path), tmp_path / "elsewhere") == "ValueError: wrong"
