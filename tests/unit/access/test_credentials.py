"""The secrets of an installation: made once, the owner's alone, and compared whole."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlops_assets.access.credentials import is_authorized, serving_token
from mlops_assets.core.settings import Settings


def test_a_token_is_made_once_for_all_processes(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with ThreadPoolExecutor(8) as pool:
        [token] = set(pool.map(lambda _: serving_token(settings), range(8)))
    assert len(token) >= 32
    assert settings.serving_token_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["serving_token"]


def test_the_token_of_the_settings_wins(tmp_path: Path) -> None:
    assert serving_token(Settings(home=tmp_path, serving_token="given")) == "given"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("header", "authorized"),
    [
        ("Bearer secret", True),
        ("bearer  secret", True),
        ("Bearer secre", False),
        ("Bearer secrets", False),
        ("Basic secret", False),
        ("secret", False),
        ("Bearer ", False),
        ("Bearer sécret", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_whole_token_is_accepted(header: str | None, authorized: bool) -> None:
    assert is_authorized(header and header.encode(), "secret") == authorized
