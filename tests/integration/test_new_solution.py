"""`mlops new` on rows of a real Postgres: types of its own, a decimal, an array, a key of two columns, and times in every row."""

from collections.abc import Callable

import psycopg2
import pytest
from new_tables import decided, propose_query, raw_table, roles, solution

ORDERS = """CREATE TABLE orders AS
SELECT 'shop ' || i % 3 AS shop_id, i / 3 AS order_id, TIMESTAMPTZ '2024-01-01' + i * INTERVAL '1 hour' AS ordered_at,
    (i * 37 % 100)::numeric(10, 2) AS amount, ARRAY[i] AS parts, i % 7 < 3 AS is_returned,
    TIMESTAMPTZ '2024-01-01' + i * INTERVAL '1 hour' + INTERVAL '30 days' AS returned_by
FROM generate_series(0, 1499) i"""


def test_a_query_becomes_a_source_whose_partitions_go_on(
    create_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_database("shop")
    database = psycopg2.connect(url)
    with database, database.cursor() as cursor:
        cursor.execute(ORDERS)
    database.close()
    monkeypatch.setenv("SOURCE_URL", url)
    proposal = propose_query("SELECT * FROM orders", "SOURCE_URL", label="is_returned", time="ordered_at")
    table, written = raw_table(proposal), solution(proposal)
    assert table.query is not None
    assert (table.query.sql, table.query.url_variable) == ("SELECT * FROM orders", "SOURCE_URL")
    kinds = {name: column.type for name, column in table.columns.items()}
    assert (kinds["amount"], kinds["order_id"], kinds["ordered_at"]) == ("double", "integer", "timestamptz")
    assert table.key == ["shop_id", "order_id"]
    assert written.spine.label_time == "returned_by"
    assert decided(proposal)["cadence"] == "daily"
    assert (table.partitions and table.partitions.end, written.partitions.end) == (None, None)
    assert roles(proposal, "feature") == ["amount"]
    assert roles(proposal, "left out") == ["parts"]
