"""Fields of YAML mappings: `true` is no number, wherever a number is asked for, and a boolean where one is."""

from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from mlops_assets.schema.yaml_model import YamlModel


class Section(YamlModel):
    count: Annotated[int, Field(ge=0)] | None = None
    shares: list[Annotated[float, Field(ge=0)]] = []
    floors: dict[str, float | dict[str, int]] = {}
    refit: bool | int = False
    parameters: dict[str, Any] = {}


@pytest.mark.parametrize(
    "values", [{"count": True}, {"shares": [0.5, False]}, {"floors": {"a": True}}, {"floors": {"a": {"b": True}}}]
)
def test_a_boolean_is_no_number(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"a number is asked for, not (true|false)"):
        Section.model_validate(values)


def test_a_boolean_stays_where_one_may_be() -> None:
    values = {"count": 1, "shares": [1.0], "floors": {"a": {"b": 1}}, "refit": True, "parameters": {"deep": True}}
    assert Section.model_validate(values).model_dump() == values
