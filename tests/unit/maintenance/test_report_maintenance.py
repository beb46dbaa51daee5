"""Old HTML reports go; the newest of each solution stays, however old."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from mlops_assets.core.settings import Settings
from mlops_assets.maintenance.report_maintenance import build_report_maintenance, expire_reports

NOW = datetime.now(UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Pages of two solutions that were written so many days ago."""
    settings = Settings(home=tmp_path, kept_report_days=90)
    for solution, ages in (("live", (200, 91, 89, 1)), ("ended", (400, 300))):
        folder = settings.reports_directory / solution
        folder.mkdir(parents=True)
        for age in ages:
            page = folder / f"window-{age}.html"
            page.write_text("A page")
            moment = (NOW - timedelta(days=age)).timestamp()
            os.utime(page, (moment, moment))
    return settings


def pages(settings: Settings) -> set[str]:
    return {str(page.relative_to(settings.reports_directory)) for page in settings.reports_directory.rglob("*.html")}


def test_old_pages_go_but_the_newest_of_a_solution(settings: Settings) -> None:
    before = pages(settings)
    planned = expire_reports(settings, now=NOW, dry_run=True)
    assert pages(settings) == before
    done = expire_reports(settings, now=NOW, dry_run=False)
    assert done == planned
    assert (done.pages, done.bytes) == (6, 36)
    assert sorted(done.removed) == ["ended/window-400.html", "live/window-200.html", "live/window-91.html"]
    assert pages(settings) == before - set(done.removed)
    assert expire_reports(settings, now=NOW, dry_run=False).removed == []


def test_the_asset_shows_what_went(settings: Settings) -> None:
    result = dg.materialize([build_report_maintenance()], resources={"settings": settings})
    [made] = result.asset_materializations_for_node("platform__report_maintenance")
    assert (made.metadata["pages"].value, made.metadata["pages_removed"].value) == (6, 3)


def test_without_reports_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert expire_reports(Settings(home=tmp_path), now=NOW, dry_run=False).pages == 0
