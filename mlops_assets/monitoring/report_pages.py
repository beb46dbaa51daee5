"""The HTML pages of monitoring windows: written on this machine, and in object storage where the state is there."""

from pathlib import Path

from mlops_assets.core.object_storage import ObjectFolder
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings


def report_path(settings: Settings, solution: str, window: str) -> Path:
    """The page of one window on this machine, whether it is there or not."""
    return settings.reports_directory / _name(solution, window)


def report_storage(settings: Settings) -> ObjectFolder | None:
    """Where the pages of all machines are; None when those of this one are all."""
    return ObjectFolder(f"{settings.storage}/reports") if settings.storage else None


def write_report(settings: Settings, solution: str, window: str, page: str) -> str:
    """Write the page of one window. Returns its place, which all machines reach where there is one."""
    path, storage = report_path(settings, solution, window), report_storage(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    if storage is None:
        return str(path)
    name = _name(solution, window)
    patiently(lambda: storage.write(name, page.encode()))
    return f"{storage.url}/{name}"


def fetch_report(settings: Settings, solution: str, window: str) -> Path:
    """The page of one window on this machine, fetched from object storage where the state is there: another machine may have written it."""
    path, storage = report_path(settings, solution, window), report_storage(settings)
    if storage is not None and (page := patiently(lambda: storage.read(_name(solution, window)))) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page)
    return path


def _name(solution: str, window: str) -> str:
    return f"{solution}/window-{window}.html"
