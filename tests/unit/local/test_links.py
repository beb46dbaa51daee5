"""Links with a token: complete for a person, and never on the command line of a browser."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlops_assets.access.credentials import access_token
from mlops_assets.core.settings import Settings
from mlops_assets.local.links import PAGES, link, open_in_browser


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000/?token=t"),
        ("http://127.0.0.1:3000/assets/a?view=checks", "http://127.0.0.1:3000/assets/a?view=checks&token=t"),
        ("http://127.0.0.1:5000/#/models/a", "http://127.0.0.1:5000/?token=t#/models/a"),
    ],
)
def test_a_link_keeps_its_page(address: str, expected: str) -> None:
    assert link(address, "t") == expected


def test_the_browser_gets_a_file_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    settings, arguments = Settings(home=tmp_path), tmp_path / "arguments"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {arguments}\n')
    browser.chmod(0o700)
    token = access_token(settings)
    # In a process of its own: the list of browsers is read from the environment once.
    program = (
        "import sys; from pathlib import Path; from mlops_assets.core.settings import Settings;"
        "from mlops_assets.local.links import PAGES, open_in_browser;"
        "sys.exit(not open_in_browser(Settings(home=Path(sys.argv[1])), PAGES['dagster']))"
    )
    opened = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env={"DISPLAY": ":0", "BROWSER": str(browser)}, timeout=60, check=False
    )
    assert opened.returncode == 0
    while not arguments.exists() or not arguments.read_text():
        time.sleep(0.01)
    [page] = arguments.read_text().split()
    assert token not in page
    file = Path(page.removeprefix("file://"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert PAGES["dagster"].link(settings) in file.read_text()


def test_without_windows_no_browser_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not open_in_browser(Settings(home=tmp_path), PAGES["dagster"])
    assert list(tmp_path.iterdir()) == []
