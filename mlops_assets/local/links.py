"""The links that open a page of the platform with one click: its address with the token that opens a session."""

import os
import sys
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from mlops_assets.access.credentials import access_token, serving_token
from mlops_assets.access.guard import TOKEN_PARAMETER
from mlops_assets.core.settings import Settings


@dataclass(frozen=True)
class Page:
    """A page that a person opens: its title, its address, and the token of its server."""

    title: str
    address: Callable[[Settings], str]
    token: Callable[[Settings], str]

    def link(self, settings: Settings) -> str:
        """The address with the token."""
        return link(self.address(settings), self.token(settings))


PAGES = {
    "dagster": Page("Dagster", lambda settings: settings.dagster_url, access_token),
    "mlflow": Page("MLflow", lambda settings: settings.mlflow_url, access_token),
    "serving": Page("Serving", lambda settings: f"{settings.serving_url}/docs", serving_token),
}
"""The pages by the names that `mlops open` takes."""


def link(address: str, token: str) -> str:
    """The address with the token, for a person's terminal alone: who has it gets in."""
    parts = urlsplit(address)
    query = "&".join(filter(None, [parts.query, urlencode({TOKEN_PARAMETER: token})]))
    return parts._replace(path=parts.path or "/", query=query).geturl()


def open_in_browser(settings: Settings, page: Page) -> bool:
    """Open the page in a browser with windows. Returns whether there is one."""
    has_windows = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if not has_windows:
        return False
    # Everybody may read the command line of the browser: it gets the address of a file that leads on.
    return webbrowser.open(_write_page(settings, page.link(settings)).as_uri())


def _write_page(settings: Settings, address: str) -> Path:
    """A page, readable by the owner alone, that leads to `address`."""
    path = settings.home / "open.html"
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(address)}">\n')
    return path
