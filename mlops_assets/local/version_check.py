"""Refusal of states that this release must not open: newer ones, and older ones that an upgrade has to migrate first."""

from typing import TYPE_CHECKING

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local import postgres
from mlops_assets.local.version_log import (
    FORM,
    PRODUCT,
    WRITTEN,
    VersionEntry,
    installed_versions,
    last_writer,
    record,
    unfinished_upgrade,
)

if TYPE_CHECKING:
    from mlops_assets.local.state_parts import Part


class StateVersionError(StackError):
    """The state is not of this release."""


def check_folder(settings: Settings) -> None:
    """Raise StateVersionError when the state folder alone shows that its servers must not be started: nothing runs yet."""
    writer = last_writer(settings)
    if writer is not None and writer.form > FORM:
        raise StateVersionError(
            f"The state in {settings.home} was written by {PRODUCT} {writer.versions[PRODUCT]}, which is newer than this one.",
            remedy=f"{_install(writer)}, or restore the backup of before its upgrade: mlops restore",
        )
    cluster = postgres.cluster_version(settings) if settings.postgres_url is None else None
    if cluster is not None and cluster != postgres.installed_version():
        raise StateVersionError(
            f"The Postgres in {settings.home} is of version {cluster}, and this release has {postgres.installed_version()}.",
            remedy=f"{_install(writer)}, and make a backup with them: mlops backup. "
            "With this release restore it into an empty MLOPS_HOME: mlops restore",
        )


def begin_start(settings: Settings) -> None:
    """Record that the state is of this release when there is none yet, in the folder or on a server elsewhere.

    Raises StateVersionError when an upgrade of it has not ended.
    """
    if settings.postgres_url is None and not settings.postgres_directory.exists():
        record(settings, WRITTEN, FORM, changes=[])
    if unfinished := unfinished_upgrade(settings):
        raise StateVersionError(
            f"The upgrade of {settings.home} that began at {unfinished.at:%Y-%m-%d %H:%M:%S} UTC has not ended.",
            remedy="Go on with it: mlops upgrade",
        )


def is_of_this_release(settings: Settings) -> bool:
    """Whether exactly the installed packages are known to have written the state."""
    writer = last_writer(settings)
    return writer is not None and writer.form == FORM and writer.versions == installed_versions()


def check_state(settings: Settings) -> None:
    """Raise StateVersionError when the state is newer than this release, or must be migrated. Else record that it is of this release.

    Postgres must answer.
    """
    if is_of_this_release(settings):
        return
    from mlops_assets.local.state_parts import Condition, inspect_state

    parts = inspect_state(settings)
    refuse_newer(settings, parts)
    if older := [part for part in parts if part.condition is Condition.OLDER]:
        changes = "; ".join(f"{part.name} ({part.state}, and this release needs: {part.program})" for part in older)
        raise StateVersionError(
            f"The state in {settings.home} is older than this release: {changes}.",
            remedy="Migrate it, after a backup: mlops upgrade --backup FOLDER",
        )
    record(settings, WRITTEN, FORM, changes=[])


def refuse_newer(settings: Settings, parts: "list[Part]") -> None:
    """Raise StateVersionError when one of the parts is newer than this release."""
    from mlops_assets.local.state_parts import Condition

    if newer := [part for part in parts if part.condition is Condition.NEWER]:
        versions = "; ".join(f"{part.name} is {part.state}, and this release knows {part.program}" for part in newer)
        raise StateVersionError(
            f"The state in {settings.home} is newer than this release: {versions}.",
            remedy=f"{_install(last_writer(settings))}, or restore the backup of before its upgrade: mlops restore",
        )


def _install(writer: VersionEntry | None) -> str:
    if writer is None:
        return "Install the packages that wrote it"
    packages = " ".join(f"'{package}=={there}'" for package, there in former_packages(writer.versions).items())
    return f"Install the packages that wrote it: uv pip install {packages}"


def former_packages(versions: dict[str, str]) -> dict[str, str]:
    """Those of the `versions` that are not installed, and the product in any case."""
    installed = installed_versions()
    return {name: there for name, there in versions.items() if name == PRODUCT or installed.get(name) != there}
