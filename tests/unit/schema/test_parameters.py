"""Parameters of a team's function, by name and type."""

from typing import Any

import pytest

from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.parameters import check_parameters


def cheap(row: object, *, limit: float, currency: "str" = "EUR", free=None) -> None:
    """A function of a team."""


def test_what_the_function_takes_is_accepted() -> None:
    for parameters in ({"limit": 3.5}, {"limit": 3, "currency": "USD"}, {"limit": 1.0, "free": object()}):
        check_parameters(cheap, parameters, (), "cheap")


@pytest.mark.parametrize(
    ("parameters", "path", "words"),
    [
        ({}, (), "cheap needs the parameter limit"),
        ({"limit": 1.0, "curency": "x"}, ("curency",), "cheap has no parameter 'curency'; did you mean currency?"),
        ({"limit": 1.0, "row": 1}, ("row",), "cheap has no parameter 'row'"),
        ({"limit": "1"}, ("limit",), "valid number"),
        ({"limit": 1.0, "currency": 7}, ("currency",), "valid string"),
    ],
)
def test_what_it_does_not_take_is_refused_at_its_place(parameters: dict[str, Any], path: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_parameters(cheap, parameters, ("gates", "own"), "cheap")
    assert error.value.path == ("gates", "own", *path)
    assert words in error.value.message
