"""The asset that removes old HTML reports, and the removal."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.core.settings import Settings
from mlops_assets.maintenance.upkeep import REPORT_MAINTENANCE, upkeep_asset
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
    for folder in sorted(settings.reports_directory.glob("*/")):
        written = sorted((page.stat().st_mtime, page) for page in folder.glob("*.html"))
        result.pages += len(written)
        result.bytes += sum(page.stat().st_size for _, page in written)
        for moment, page in written[:-1]:
            if moment < oldest:
                result.removed.append(str(page.relative_to(settings.reports_directory)))
                if not dry_run:
                    page.unlink()
    return result
