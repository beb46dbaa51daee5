import pytest
from pydantic import ValidationError

from mlops_assets.schema.variables import fill_in
from mlops_assets.schema.yaml_model import YamlModel


class Inner(YamlModel):
    limit: int


class Outer(YamlModel):
    url: str
    files: list[str] = []
    tables: dict[str, Inner] = {}


def test_a_variable_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "parcels")
    monkeypatch.setenv("LIMIT", "12")
    outer = Outer.model_validate(
        {
            "url": "s3://{{ env.BUCKET }}/{{ env('FOLDER', 'raw') }}",
            "files": ["{{env.BUCKET}}.csv"],
            "tables": {"a": {"limit": "{{ env.LIMIT }}"}},
        }
    )
    assert (outer.url, outer.files, outer.tables["a"].limit) == ("s3://parcels/raw", ["parcels.csv"], 12)


def test_a_variable_that_is_not_set_is_told_at_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMIT", raising=False)
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"url": "x", "tables": {"a": {"limit": "{{ env.LIMIT }}"}}})
    (error,) = raised.value.errors()
    assert error["loc"] == ("tables", "a", "limit")
    assert "the environment variable LIMIT is not set; set it, or write {{ env('LIMIT', 'default') }}" in error["msg"]


def test_other_braces_stay() -> None:
    assert fill_in("{{ ref('orders') }} {x}") == "{{ ref('orders') }} {x}"
