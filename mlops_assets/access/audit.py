"""The audit log: who did what to an installation, one JSON object a line, added before it is done and again when it has ended.

Lines are added and never changed by the platform. Whoever may write the state folder may change the file too: keep a copy elsewhere
where that matters.
"""

import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from mlops_assets.core.errors import StackError
from mlops_assets.core.line_files import append_line, read_lines

_log = logging.getLogger(__name__)

BEGAN = "began"
DONE = "done"


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One action: its moment, who did it in which role by which door, what it was, and how it ended."""

    id: str
    at: datetime
    actor: str
    role: str
    door: str
    action: str
    details: Any = None
    outcome: str = BEGAN


@contextmanager
def audited(
    path: Path, *, actor: str, role: str, door: str, action: str, details: object, is_required: bool
) -> Iterator[list[str]]:
    """Record the action of the block in the audit log `path` before it begins, and its end.

    What the block adds to the list is the outcome; without that it is done, or the error that it raises. Nothing that `is_required` to be
    recorded is done when the log cannot be written, which raises OSError; anything else is, with a warning.
    """
    entry = AuditEntry(
        id=secrets.token_hex(8), at=datetime.now(UTC), actor=actor, role=role, door=door, action=action, details=details
    )
    _keep(path, entry, is_required=is_required)
    outcome: list[str] = []
    try:
        yield outcome
    except BaseException as error:
        if not outcome:
            outcome.append(f"{type(error).__name__}: {error}".partition("\n")[0])
        raise
    finally:
        end = msgspec.structs.replace(entry, at=datetime.now(UTC), outcome="; ".join(outcome) or DONE)
        _keep(path, end, is_required=is_required)


def read_audit_log(path: Path) -> list[AuditEntry]:
    """The actions in the audit log, oldest first, each with the outcome that is known. Raises StackError naming a line that is none."""
    entries: dict[str, AuditEntry] = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            entry = msgspec.json.decode(line, type=AuditEntry)
        except msgspec.MsgspecError as error:
            raise StackError(
                f"Line {number} of {path} is none of the platform's: {error}.", remedy="See who wrote it; move it elsewhere."
            ) from error
        began = entries.get(entry.id, entry)
        entries[entry.id] = msgspec.structs.replace(entry, at=began.at)
    return list(entries.values())


def _keep(path: Path, entry: AuditEntry, *, is_required: bool) -> None:
    try:
        append_line(path, json.dumps(msgspec.to_builtins(entry), ensure_ascii=False).encode())
    except OSError as error:
        if is_required:
            raise
        _log.warning("%s is not recorded in the audit log: %s", entry.action, error)
