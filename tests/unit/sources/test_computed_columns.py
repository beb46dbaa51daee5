"""What an expression of a raw table's YAML may hold, and what a person who wrote something else is told."""

import pytest

from mlops_assets.schema.source import RawTable
from mlops_assets.sources.computed_columns import expression_problems


def problem(expression: str, *, key: list[str]) -> str | None:
    columns = {"weight": {"type": "double"}, "parcel": {"type": "varchar", "expression": expression}}
    table = {"description": "Parcels.", "files": ["parcels.csv"], "format": "csv", "key": key, "columns": columns}
    return expression_problems(RawTable.model_validate(table)).get("parcel")


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("row_number() over ()", "a window function has no place in an expression: 'row_number() over ()'"),
        ("count(*)", "an aggregate has no place"),
        ("(select 1)", "a subquery has no place"),
        ("uuid()", "a function that gives another result at each call has no place"),
        ("unnest([1])", "unnest has no place"),
        ("height + 1", 'Referenced column "height" not found'),
        ("nothing(weight)", "Scalar Function with name nothing does not exist"),
    ],
)
def test_an_expression_that_is_refused_tells_what_is_allowed(expression: str, told: str) -> None:
    message = problem(expression, key=[])
    assert message is not None
    assert told in message
    assert "reads the columns before it, of the same row, with operators, CASE and scalar functions" in message


def test_whoever_needs_a_key_is_told_how_to_make_one() -> None:
    for message in (problem("row_number() over ()", key=[]), problem("uuid()", key=["parcel"])):
        assert message is not None
        assert "md5(concat_ws('|', first, second))" in message
        assert "leave `key` out" in message
    assert "key" not in str(problem("count(*)", key=[]))
    assert problem("md5(concat_ws('|', weight, weight))", key=["parcel"]) is None
