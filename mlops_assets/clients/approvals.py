"""The record of approvals: what was asked, approved and refused of versions, by whom and why. Entries are added and never changed.

Each entry is signed together with the signature before it, so that none can be changed, or taken from among the others, without the key.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.line_files import append_line, read_lines

_PURPOSE = "approval"
_FIRST = ""
"""What the first entry is signed with, in the place of a signature before it."""


class ApprovalEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One word about a version with the bundle `bundle_sha256`: who said it, what vouches for the name, why, when, and by which run."""

    step: Literal["asked", "approved", "refused"]
    solution: str
    version: int
    segment: str | None
    bundle_sha256: str
    by: str
    identified_by: str
    reason: str
    run_id: str
    at: datetime

    @property
    def is_automatic(self) -> bool:
        """Whether no person is behind it."""
        return not self.identified_by


class _SignedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entry: ApprovalEntry
    signature: str


def read_approvals(path: Path, signer: Signer) -> list[ApprovalEntry]:
    """The entries, oldest first; none without a file. Raises EvidenceError naming a line that this installation did not sign as it is."""
    return [signed.entry for signed in _read(path, signer)]


def record_approval(path: Path, signer: Signer, entry: ApprovalEntry) -> None:
    """Add `entry`. Raises EvidenceError as `read_approvals` does."""
    with _adding(path):
        former = _read(path, signer)
        before = former[-1].signature if former else _FIRST
        signed = _SignedEntry(entry, signer.sign(_PURPOSE, _statement(entry, before)))
        append_line(path, json.dumps(msgspec.to_builtins(signed), ensure_ascii=False).encode())


def words_about(entries: Sequence[ApprovalEntry], *, solution: str, version: int, bundle_sha256: str) -> list[ApprovalEntry]:
    """The entries about a version with this bundle, oldest first."""
    named = (solution, version, bundle_sha256)
    return [entry for entry in entries if (entry.solution, entry.version, entry.bundle_sha256) == named]


def waiting_versions(entries: Sequence[ApprovalEntry]) -> list[ApprovalEntry]:
    """What was asked last for each solution and segment, where nobody has decided about that version since. Older questions are overtaken."""
    last: dict[tuple[str, str | None], ApprovalEntry] = {}
    for entry in entries:
        known = last.get((entry.solution, entry.segment))
        is_of_known = known is not None and known.version == entry.version
        # Of a version that several persons ask for, the first question tells since when it waits.
        is_asked_again = is_of_known and known is not None and known.step == entry.step
        if (entry.step == "asked" or is_of_known) and not is_asked_again:
            last[entry.solution, entry.segment] = entry
    return sorted((entry for entry in last.values() if entry.step == "asked"), key=lambda entry: entry.at)


def _read(path: Path, signer: Signer) -> list[_SignedEntry]:
    entries: list[_SignedEntry] = []
    before = _FIRST
    for number, line in enumerate(read_lines(path), start=1):
        try:
            signed = msgspec.json.decode(line, type=_SignedEntry)
        except msgspec.MsgspecError:
            # A full disk or a power failure cut it before anybody was told. One that was whole is missed by the signature after it.
            continue
        if not signer.is_genuine(signed.signature, _PURPOSE, _statement(signed.entry, before)):
            raise EvidenceError(
                f"Line {number} of {path} is not as this installation signed it after the line before: no approval counts. Restore the file "
                "from a backup; or move it elsewhere, and what waits is asked for anew by mlops promote."
            )
        entries.append(signed)
        before = signed.signature
    return entries


def _statement(entry: ApprovalEntry, before: str) -> dict[str, Any]:
    return {"entry": msgspec.to_builtins(entry), "after": before}


@contextmanager
def _adding(path: Path) -> Iterator[None]:
    """One process at a time adds an entry: its signature is over the one before."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
