"""Import paths of YAML files: what is wrong with them, told from source that is parsed and never imported."""

import sys
from collections.abc import Iterator

import pytest

from mlops_assets.schema.configuration_errors import (
    ConfigurationError,
    check_import_path,
    imported_names,
    method_parameters,
    nearest,
)

_TEAM = {
    "__init__.py": "raise RuntimeError('imported')",
    "models/__init__.py": "from .inner import Base as Exported\nfrom team_code.models.inner import Base\n",
    "models/inner.py": (
        "import duckdb\nfrom duckdb import DuckDBPyConnection\n"
        "class Base:\n    def fit(self, X, y, *, sample_weight=None): ...\n    def predict(self, X, **options): ...\n"
        "class Child(Base):\n    pass\n"
        "class Other(duckdb.Something):\n    pass\n"
    ),
}


@pytest.fixture(autouse=True, scope="module")
def team_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package that fails when it is imported."""
    folder = tmp_path_factory.mktemp("project")
    for name, code in _TEAM.items():
        path = folder / "team_code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def refusal(import_path: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_import_path(import_path, ("training", "estimator", "type"))
    assert str(caught.value) == f"training.estimator.type: {caught.value.message}"
    return caught.value.message


@pytest.mark.parametrize(
    "path", ["team_code.models.inner.Child", "team_code.models.Exported", "json.JSONDecoder", "pathlib.Path"]
)
def test_a_class_that_exists_is_accepted_without_an_import(path: str) -> None:
    check_import_path(path, ())
    assert "team_code.models" not in sys.modules


@pytest.mark.parametrize("path", ["", ".", "Class", ".a.B", "a..B", "a.b.", "..", "json."])
def test_what_is_no_path_is_refused_with_its_form(path: str) -> None:
    assert refusal(path) == f"{path!r} is no import path; write package.module.Class"


@pytest.mark.parametrize(
    "path",
    ["nowhere_at_all.Class", "a b.C", "os; import x.Y", "/etc/passwd.X", "sys.Path", "math.Sqrt", "__main__.Model"],
)
def test_a_package_without_source_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as in a command
    assert refusal(path) == f"the package {path.split('.')[0]!r} is not installed, or is not written in Python"


def test_the_nearest_name_is_offered() -> None:
    assert refusal("team_code.model.inner.Child") == "there is no module 'model' in team_code; did you mean models?"
    assert refusal("team_code.models.inner.Chidl") == "team_code.models.inner has no 'Chidl'; did you mean Child?"
    assert "allowed: Base, Child" in refusal("team_code.models.inner.Zzzzzzz")


def test_nearest_offers_all_in_order_when_none_is_near() -> None:
    assert nearest("xyz", ["beta", "alpha"]) == "allowed: alpha, beta"
    assert nearest("xyz", []) == "there is none"
    assert nearest("roc_acu", ["roc_auc", "mae"]) == "did you mean roc_auc?"


def test_parameters_are_those_of_the_class_or_of_its_base() -> None:
    assert method_parameters("team_code.models.inner.Child", "fit") == ["X", "y", "sample_weight"]
    assert method_parameters("team_code.models.Exported", "fit") == ["X", "y", "sample_weight"]


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("team_code.models.inner.Base", "predict"),
        ("team_code.models.inner.Base", "missing"),
        ("team_code.models.inner.Other", "fit"),
        ("nowhere_at_all.Model", "fit"),
    ],
)
def test_parameters_that_cannot_be_told_are_none(path: str, method: str) -> None:
    assert method_parameters(path, method) is None


def test_names_imported_from_a_package() -> None:
    assert imported_names("team_code.models.inner", "duckdb") == {"DuckDBPyConnection"}
    assert imported_names("team_code.models.inner", "duck") == set()
    assert imported_names("team_code.nowhere", "duckdb") is None
