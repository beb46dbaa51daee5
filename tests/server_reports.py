"""What a server process says of itself. No tests here."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psutil

from mlops_assets.core.settings import Settings
from mlops_assets.serving.reports import ProcessReport, ServedModel, process_start


def report(settings: Settings, version: int | None, *, channel: Any = "online", age: float = 0, **fields: Any) -> None:
    """What a process, this one, says."""
    model = {"model_sha256": None, "since": None, "segments": {}, "problems": ()} | fields
    written = ProcessReport(
        channel=channel,
        pid=os.getpid(),
        started=process_start(psutil.Process()),
        written_at=datetime.now(UTC) - timedelta(seconds=age),
        models={"example": ServedModel(version=version, **model)},
    )
    settings.server_reports_directory.mkdir(exist_ok=True)
    (settings.server_reports_directory / f"{channel}-{os.getpid()}.json").write_bytes(msgspec.json.encode(written))
