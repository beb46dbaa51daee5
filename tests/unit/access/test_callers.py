"""Callers of the online server as their file keeps them: shown once, hashed, and whole whoever changes them at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlops_assets.access.callers import PREFIX, add_caller, hash_token, read_callers, remove_caller, rotate_token
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings


def add(settings: Settings, name: str) -> str:
    return add_caller(settings, name, ("flights",), requests_per_second=5, burst=10)


def test_the_file_holds_no_token_and_is_the_owners_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    tokens = [add(settings, "shop"), rotate_token(settings, "shop", timedelta(hours=1))[0]]
    text = settings.callers_file.read_text()
    assert all(token.startswith(PREFIX) and len(token) > 40 and token not in text for token in tokens)
    assert {path.stat().st_mode & 0o777 for path in settings.home.iterdir()} == {0o600}
    [caller] = read_callers(settings.callers_file)
    assert (caller.name, caller.solutions, caller.requests_per_second, caller.burst) == ("shop", ("flights",), 5, 10)
    assert [token.sha256 for token in caller.tokens] == [hash_token(token) for token in tokens]


def test_the_former_token_is_valid_until_the_stated_time_and_no_rotation_prolongs_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    add(settings, "shop")
    _, until = rotate_token(settings, "shop", timedelta(hours=1))
    rotate_token(settings, "shop", timedelta(hours=24))
    [first, second, newest] = read_callers(settings.callers_file)[0].tokens
    assert (first.expires_at, newest.expires_at) == (until, None)
    assert second.expires_at is not None
    assert second.expires_at > until
    now = datetime.now(UTC)
    assert [token.is_valid(now) for token in (first, second, newest)] == [True] * 3
    assert [token.is_valid(until) for token in (first, second, newest)] == [False, True, True]


def test_callers_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add(settings, f"caller-{number}"), range(16)))
    assert len(read_callers(settings.callers_file)) == 16


def test_mistakes_are_messages(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    add(settings, "shop")
    with pytest.raises(StackError, match="There is a caller 'shop' already"):
        add(settings, "shop")
    for name in ("", "../up", "a/b", ".hidden", "a b", "x" * 64):
        with pytest.raises(StackError, match="is no name of a caller"):
            add(settings, name)
    with pytest.raises(StackError, match="There is no caller 'shp'"):
        remove_caller(settings, "shp")
    settings.callers_file.write_text('[{"name": "shop"}]')
    with pytest.raises(StackError, match="is no file of callers"):
        read_callers(settings.callers_file)
