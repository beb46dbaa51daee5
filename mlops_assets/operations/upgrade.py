"""Migration of a state that an earlier release wrote, after a backup of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mlops_assets.core.errors import StackError
from mlops_assets.core.patience import patiently
from mlops_assets.core.settings import Settings
from mlops_assets.lake.tables import LakeError
from mlops_assets.local import control, environment_owner, lake_catalog, postgres, preflight, version_check
from mlops_assets.local.state_parts import LAKE, Condition, Part, inspect_state
from mlops_assets.local.version_log import (
    BEGAN,
    FIRST_RELEASE,
    FORM,
    PRODUCT,
    UPGRADED,
    BackupPlace,
    VersionEntry,
    last_writer,
    record,
    unfinished_upgrade,
)
from mlops_assets.operations.backup.creation import Report, create_backup


@dataclass(frozen=True)
class Plan:
    """The parts of the state, the packages that wrote it, and the upgrade that began and did not end, if there is one."""

    parts: list[Part]
    written_by: dict[str, str]
    unfinished: VersionEntry | None

    @property
    def pending(self) -> list[Part]:
        """The parts that an upgrade migrates."""
        return [part for part in self.parts if part.condition is Condition.OLDER]

    @property
    def has_work(self) -> bool:
        """Whether an upgrade would do anything."""
        return bool(self.pending) or self.unfinished is not None


@dataclass(frozen=True)
class Upgrade:
    """An upgrade that was made: what it changed, and the backup of before."""

    changes: list[str]
    backup: BackupPlace | None


def plan_upgrade(settings: Settings) -> Plan:
    """Look at every part of the state; nothing is migrated. Postgres is started for it unless it runs.

    Raises StackError when there is no installation, or when a part is newer than this release.
    """
    preflight.check_installation(settings)
    with _databases(settings):
        parts = inspect_state(settings)
    version_check.refuse_newer(settings, parts)
    writer = last_writer(settings)
    return Plan(parts, writer.versions if writer else {PRODUCT: FIRST_RELEASE}, unfinished_upgrade(settings))


def upgrade_state(settings: Settings, plan: Plan, *, folder: Path | None, report: Report) -> Upgrade:
    """Stop the stack, back the state up to `folder` (None: do not), migrate what is older, and record it. The stack stays down.

    One that was interrupted goes on: parts that are migrated are left, and the backup is the one of before it.
    """
    report("Stopping the stack")
    control.down(settings)
    changes = [f"{part.name}: {part.state or 'nothing'} -> {part.program}" for part in plan.pending]
    with _databases(settings):
        place = plan.unfinished.backup if plan.unfinished else _back_up(settings, plan, folder, report)
        writer = last_writer(settings)
        record(settings, BEGAN, writer.form if writer else 0, backup=place, changes=changes)
        try:
            for part in plan.pending:
                report(f"{part.name}: {part.change}")
                part.migrate(settings)
        except LakeError as error:
            raise StackError(str(error), remedy="Correct the cause, then go on: mlops upgrade") from error
    record(settings, UPGRADED, FORM, backup=place, changes=changes)
    return Upgrade(changes, place)


def _back_up(settings: Settings, plan: Plan, folder: Path | None, report: Report) -> BackupPlace | None:
    if folder is None:
        return None
    # A catalog of an earlier format cannot be read before it is migrated; what the backup holds is whole all the same.
    is_readable = all(part.name != LAKE for part in plan.pending)
    made = create_backup(settings, folder, keep=None, report=report, with_tables=is_readable)
    return BackupPlace(str(folder.expanduser().resolve()), made.point.name)


@contextmanager
def _databases(settings: Settings) -> Iterator[None]:
    with control.storage(settings):
        # The container of a Postgres may have been started a second ago.
        patiently(partial(postgres.create_databases, settings))
        environment_owner.claim_servers(settings)
        lake_catalog.ensure_catalog(settings)
        yield
