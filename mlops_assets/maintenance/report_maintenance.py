"""The asset that removes old HTML reports, and the removal."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.maintenance.upkeep import REPORT_MAINTENANCE, upkeep_asset
from mlops_assets.monitoring.report_pages import report_storage
from mlops_assets.stages.faults import step


@dataclass
class ReportMaintenance:
    """The result: the pages that there are and their bytes, and those that were removed, or with a dry run would be."""

    pages: int = 0
    bytes: int = 0
    removed: list[str] = field(default_factory=list)


def build_report_maintenance() -> dg.AssetsDefinition:
    """The asset. It reads no table, and depends on nothing."""

    @upkeep_asset(
        key=REPORT_MAINTENANCE,
        description="The HTML reports without old ones. What is in them stays in the lake, and its window can be materialized again.",
        kinds={"html"},
        code_version="1",
    )
    @step
    def report_maintenance(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        done = expire_reports(settings, now=datetime.now(UTC), dry_run=False)
        return dg.MaterializeResult(
            metadata={
                "pages": dg.MetadataValue.int(done.pages),
                "bytes": dg.MetadataValue.int(done.bytes),
                "pages_removed": dg.MetadataValue.int(len(done.removed)),
            }
        )

    return report_maintenance


def expire_reports(settings: Settings, *, now: datetime, dry_run: bool) -> ReportMaintenance:
    """Remove pages written more than `kept_report_days` before `now`, but for the newest of each solution; with `dry_run` only find them."""
    oldest = (now - timedelta(days=settings.kept_report_days)).timestamp()
    result = ReportMaintenance()
    storage = report_storage(settings)
    local = _local_pages(settings)
    stored = {name: (page.modified, page.size) for name, page in patiently(storage.objects).items()} if storage else local
    pages: dict[str, list[tuple[float, int, str]]] = {}
    for name, (moment, size) in stored.items():
        pages.setdefault(name.partition("/")[0], []).append((moment, size, name))
    for solution in sorted(pages):
        written = sorted(pages[solution])
        result.pages += len(written)
        result.bytes += sum(size for _, size, _ in written)
        result.removed += [name for moment, _, name in written[:-1] if moment < oldest]
    if not dry_run:
        for name in result.removed:
            if storage:
                storage.remove(name)
        # This machine may have copies of pages that another one removed.
        kept = stored.keys() - set(result.removed)
        for name in local.keys() - kept:
            (settings.reports_directory / name).unlink()
    return result


def _local_pages(settings: Settings) -> dict[str, tuple[float, int]]:
    """The pages on this machine: when each was written, and its bytes, by its name."""
    folder = settings.reports_directory
    statuses = {str(page.relative_to(folder)): page.stat() for page in folder.glob("*/*.html")}
    return {name: (status.st_mtime, status.st_size) for name, status in statuses.items()}
