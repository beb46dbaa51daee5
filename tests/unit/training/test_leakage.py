"""How much of a label a feature explains: nothing by chance, all when it is the label, whatever the form."""

import duckdb
import pytest

from mlops_assets.training.leakage import explained_labels

FEATURES = {
    "copy": "y",
    "text": "'class ' || y",
    "code": "CASE WHEN y = 1 THEN i % 5 ELSE 5 + i % 5 END",
    "key": "i",
    "noise": "hash(i * 7) % 1000",
    "null": "CAST(NULL AS DOUBLE)",
    "missing_when_positive": "CASE WHEN y = 1 THEN NULL ELSE i % 3 END",
    "infinite_when_positive": "CASE WHEN y = 1 THEN 'inf'::DOUBLE ELSE i % 3 END",
}
NUMERIC = {name: name != "text" for name in FEATURES}


def explained(label: str, *, regression: bool, rows: int = 4000, features: dict[str, str] | None = None) -> dict[str, float]:
    features = features or FEATURES
    columns = ", ".join(f'{expression} AS "{name}"' for name, expression in features.items())
    query = f"(SELECT i AS id, y AS label, {columns} FROM (SELECT i, {label} AS y FROM range({rows}) AS t(i)))"
    numeric = {name: NUMERIC.get(name, True) for name in features}
    with duckdb.connect() as connection:
        return explained_labels(connection, rows=query, key="id", label="label", features=numeric, regression=regression)


@pytest.mark.parametrize("label", ["CAST(hash(i) % 2 AS INTEGER)", "CAST(hash(i) % 10 = 0 AS INTEGER)"])
def test_what_is_the_label_in_another_form_explains_it_and_chance_does_not(label: str) -> None:
    found = explained(label, regression=False)
    for name in ("copy", "text", "code", "missing_when_positive", "infinite_when_positive"):
        assert found[name] > 0.95, name
    for name in ("key", "noise", "null"):
        assert found[name] < 0.2, name


def test_of_numbers_any_function_is_seen() -> None:
    # Another hash than that of the key, which parts the rows in halves.
    features = {"copy": "y", "parabola": "(y - 50) * (y - 50)", "noise": "hash(i * 7) % 1000", "key": "i"}
    found = explained("CAST(hash(i + 10000) % 100 AS DOUBLE)", regression=True, features=features)
    assert found["copy"] > 0.85
    assert found["noise"] < 0.2
    assert found["key"] < 0.2
    half = explained("CAST(hash(i + 10000) % 100 AS DOUBLE)", regression=True, features={"half": "CAST(y >= 50 AS INTEGER)"})
    # A line through two means: the correlation of a uniform number with its upper half.
    assert half["half"] == pytest.approx(0.75**0.5, abs=0.02)


def test_results_are_shares_in_order_of_the_features_and_the_same_each_time() -> None:
    first, second = (explained("CAST(hash(i) % 3 AS INTEGER)", regression=False) for _ in range(2))
    assert first == second
    assert list(first) == list(FEATURES)
    assert all(0 <= value <= 1 for value in first.values())


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_explain_nothing(rows: int) -> None:
    assert set(explained("1", regression=False, rows=rows).values()) <= {0.0}
    assert set(explained("1", regression=True, rows=rows).values()) <= {0.0}


def test_a_name_with_quotes_is_a_name() -> None:
    with duckdb.connect() as connection:
        rows = '(SELECT i AS "a ""key""", i % 2 AS "the label", i % 2 AS "x\';--" FROM range(1000) AS t(i))'
        found = explained_labels(
            connection, rows=rows, key='a "key"', label="the label", features={"x';--": True}, regression=False
        )
    assert found["x';--"] > 0.95
