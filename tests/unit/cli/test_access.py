"""`mlops access` as an operator uses it: a token is shown once, and what is kept opens nothing."""

import json
from pathlib import Path
from urllib.parse import urlsplit

from typer.testing import CliRunner

from mlops_assets.access.callers import hash_token
from mlops_assets.cli.main import app


def mlops(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["access", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_an_application_gets_a_token_a_new_one_and_none(home: Path) -> None:
    added = json.loads(mlops("add", "shop", "--solution", "flights", "--rate", "5", "--json")[1])
    first, events = added["token"], added["event_stream"]
    assert events.startswith(f"nats://shop-{hash_token(first)[:8]}:")
    second = json.loads(mlops("rotate", "shop", "--overlap", "48", "--json")[1])["token"]
    code, listed, _ = mlops("list", "--json")
    assert code == 0
    [caller] = json.loads(listed)
    assert (caller["name"], caller["solutions"], caller["requests_per_second"], caller["burst"]) == ("shop", ["flights"], 5, 10)
    assert [token["expires_at"] is None for token in caller["tokens"]] == [False, True]
    kept = (home / "callers.json").read_text()
    assert [token in listed + kept for token in (first, second)] == [False, False]
    assert [hash_token(token) in kept for token in (first, second)] == [True, True]
    assert urlsplit(events).password not in kept
    assert mlops("remove", "shop")[0] == 0
    assert json.loads(mlops("list", "--json")[1]) == []
    code, _, error = mlops("rotate", "shop")
    assert (code, error.splitlines()) == (1, ["There is no caller 'shop'.", "There are: none"])
