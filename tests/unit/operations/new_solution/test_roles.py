"""What a model may read of a table, and the key of its rows."""

import random
from pathlib import Path
from typing import Any

import pytest
from new_tables import decided, open_fields, propose_rows, propose_text, raw_table, roles, solution

from mlops_assets.core.errors import StackError

ROWS = 400


def rows(**columns: Any) -> list[dict[str, Any]]:
    """Rows with an amount and a label that have little to do with one another, and other columns by functions of both."""
    dice = random.Random(3)
    table = []
    for number in range(ROWS):
        amount, late = dice.random() * 100, dice.random() < 0.4
        table.append({"amount": amount, "late": late} | {name: make(number, late, dice) for name, make in columns.items()})
    return table


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("empty", lambda number, late, dice: None, "no value"),
        ("fixed", lambda number, late, dice: "x", "only value"),
        ("comment", lambda number, late, dice: f"text {dice.random()}", "too many"),
        ("born", lambda number, late, dice: f"{1950 + number % 50}-01-01" if number else None, "reads no times"),
        ("outcome", lambda number, late, dice: "late" if late else "in time", "by itself"),
        ("position", lambda number, late, dice: number + 1, "counts the rows"),
        ("parts", lambda number, late, dice: [number], "lists or objects"),
    ],
)
def test_a_column_that_teaches_nothing_is_left_out_with_the_reason(tmp_path: Path, name: str, make: Any, reason: str) -> None:
    proposal = propose_rows(tmp_path, rows(**{name: make}), label="late", time="none", key=("none",))
    assert roles(proposal, "left out") == [name]
    assert reason in proposal.roles[name].reason
    assert solution(proposal).features[0].request == ["amount"]


def test_a_column_that_nearly_tells_the_label_is_asked_and_can_be_kept(tmp_path: Path) -> None:
    table = rows(hint=lambda number, late, dice: late if number % 90 else not late)
    assert "leave_out" in open_fields(propose_rows(tmp_path, table, label="late"))
    kept = propose_rows(tmp_path, table, label="late", feature=("hint",))
    assert roles(kept, "feature") == ["amount", "hint"]
    assert solution(kept).checks.maximum_label_correlation == 1.0, "the check of the training lets it pass too"
    assert "leave_out" not in open_fields(propose_rows(tmp_path, table, label="late", leave_out=("hint",)))
    assert roles(propose_rows(tmp_path, table, label="late", leave_out=("none",)), "feature") == ["amount", "hint"]


def test_what_is_known_only_with_the_label_is_left_out(tmp_path: Path) -> None:
    table = rows(signed_by=lambda number, late, dice: "anna" if number % 2 else "ben")
    for row in table[-30:]:
        row["late"] = row["signed_by"] = None
    proposal = propose_rows(tmp_path, table, label="late")
    assert roles(proposal, "left out") == ["signed_by"]
    assert "known only with it" in proposal.roles["signed_by"].reason


def test_a_key_has_the_name_of_one_and_no_value_twice(tmp_path: Path) -> None:
    proposal = propose_rows(tmp_path, rows(number=lambda n, late, dice: n, parcel_id=lambda n, late, dice: f"p{n}"), label="late")
    assert decided(proposal)["key"] == "number"
    assert raw_table(proposal).key == ["number"]
    assert solution(proposal).spine.key == "number"
    made = propose_rows(tmp_path, rows(), label="late")
    assert (decided(made)["key"], solution(made).spine.key) == ("none", "row_key")


def test_a_key_of_two_columns_is_an_expression_that_keeps_them_apart(tmp_path: Path) -> None:
    table = rows(shop_id=lambda n, late, dice: f"s{n % 4}", order_id=lambda n, late, dice: n // 4)
    proposal = propose_rows(tmp_path, table, label="late")
    assert decided(proposal)["key"] == "order_id,shop_id"
    assert raw_table(proposal).key == ["order_id", "shop_id"]
    assert solution(proposal).spine.expressions == {
        "order_id_shop_id_key": "CAST(to_json([CAST(order_id AS VARCHAR), CAST(shop_id AS VARCHAR)]) AS VARCHAR)"
    }
    with pytest.raises(StackError, match="identify 4 of 400 rows"):
        propose_rows(tmp_path, table, label="late", key=("shop_id",))


def test_hostile_names_and_more_features_than_rows(tmp_path: Path) -> None:
    names = [
        "select",
        "a b",
        "it's",
        'a"b',
        "x,y",
        "{braces}",
        "value",
        "score",
        "_loaded_at",
        "Größe",
        "A",
        "a",
        "__mlops_x",
        "a: b",
        "# c",
        "- d",
    ]
    names += [f"f{number}" for number in range(84)]
    dice = random.Random(1)
    text = ",".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in [*names, "label"]) + "\n"
    text += "\n".join(",".join([*(f"{dice.random():.4f}" for _ in names), "pq"[dice.randrange(2)]]) for _ in range(120))
    proposal = propose_text(tmp_path, text, label="label", positive="p")
    columns = raw_table(proposal).columns
    assert len(columns) == 101
    renamed = {column.source: name for name, column in columns.items() if column.source}
    assert set(renamed) == {'a"b', "value", "score", "_loaded_at", "a", "__mlops_x"}
    assert renamed["value"] == "things_value"
    assert solution(proposal).features[0].request == list(columns)[:-1]
    assert solution(proposal).checks.minimum_rows == 76


def test_without_a_feature_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="No column is left"):
        propose_rows(tmp_path, [{"late": number % 2, "x": "same"} for number in range(50)], label="late")
