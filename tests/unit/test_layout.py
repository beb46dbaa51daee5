"""Unit tests mirror the package: a test of a module is found by the module's path."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_PACKAGE = _TESTS.parent / "mlops_assets"
_UNIT_TESTS = _TESTS / "unit"
_INSTANCES = _PACKAGE / "defs"
"""Sources and solutions: the tests in tests/solutions are theirs."""

_UNIT_TEST_FILES = sorted(path for path in _UNIT_TESTS.rglob("test_*.py") if path != Path(__file__))
_MODULES = sorted(path for path in _PACKAGE.rglob("*.py") if not path.is_relative_to(_INSTANCES))


def _module_of(test_file: Path) -> Path:
    folder = _PACKAGE / test_file.relative_to(_UNIT_TESTS).parent
    return folder / test_file.name.removeprefix("test_")


def _has_behaviour(source: str) -> bool:
    """Whether `source` has a function that does something; a declaration has none, a protocol's have only a docstring or `...`."""
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(not _is_constant(statement) for function in functions for statement in function.body)


def _is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _imported_modules(source: str) -> Iterator[str]:
    """Dotted names of all that `source` imports: modules, and names from modules, which may be modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


_TESTED_ON_REAL_PARTS = {
    name
    for folder in ("integration", "solutions")
    for path in (_TESTS / folder).rglob("*.py")
    for name in _imported_modules(path.read_text())
}


@pytest.mark.parametrize("test_file", _UNIT_TEST_FILES, ids=lambda path: str(path.relative_to(_UNIT_TESTS)))
def test_file_has_the_path_of_a_module(test_file: Path) -> None:
    assert _module_of(test_file).exists(), "no module has this path: move the file to its module's, or to tests/integration"


def test_modules_with_behaviour_have_a_test() -> None:
    with_unit_test = {_module_of(test_file) for test_file in _UNIT_TEST_FILES}
    without_test = [
        str(module.relative_to(_PACKAGE))
        for module in _MODULES
        if module not in with_unit_test
        and ".".join(module.relative_to(_PACKAGE.parent).with_suffix("").parts) not in _TESTED_ON_REAL_PARTS
        and _has_behaviour(module.read_text())
    ]
    assert without_test == []
