"""Admission of callers to the online server: who gives this token, what it may ask, and whether it asks too often.

The file of the callers is followed: a caller that was added, given a new token or removed needs no restart.
"""

import hmac
import logging
from hashlib import sha256
from pathlib import Path
from time import time

from mlops_assets.access.callers import Caller, read_callers
from mlops_assets.access.credentials import bearer_token
from mlops_assets.access.rate_limits import RateLimit
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

_log = logging.getLogger(__name__)


class AdmittedCaller:
    """A caller with its bucket, None when it is not limited."""

    def __init__(self, caller: Caller, limit: RateLimit | None):
        self.caller, self.limit = caller, limit


class Admission:
    """The callers of this installation as one process of the server knows them. Nobody is admitted by a file that cannot be read."""

    def __init__(self, settings: Settings):
        self._file, self._limits = settings.callers_file, settings.rate_limits_directory
        self._seen: tuple[int, ...] | None = ()
        self._tokens: dict[bytes, tuple[bytes, float, AdmittedCaller]] = {}

    def refresh(self) -> None:
        """Read the callers again when their file has changed. Requests go on with those of before until all are read.

        The server goes on whatever is wrong with the file: the operator's token opens it still.
        """
        seen = _identity(self._file)
        if seen == self._seen:
            return
        try:
            callers = read_callers(self._file)
        except StackError as error:
            _log.error("No caller is admitted: %s", error.problem)
            callers = []
        tokens = {}
        for caller in callers:
            if caller.role != "caller":
                continue
            limit = None
            if caller.requests_per_second is not None:
                try:
                    limit = RateLimit(self._limits / caller.name, per_second=caller.requests_per_second, burst=caller.burst)
                except OSError as error:
                    # A full disk, say. Not one who asks without a limit.
                    _log.error("The caller %s is not admitted: its limit cannot be kept: %s", caller.name, error)
                    continue
            admitted = AdmittedCaller(caller, limit)
            for token in caller.tokens:
                digest = bytes.fromhex(token.sha256)
                end = token.expires_at.timestamp() if token.expires_at else float("inf")
                tokens[digest] = (digest, end, admitted)
        self._tokens, self._seen = tokens, seen

    def find(self, header: bytes | None) -> AdmittedCaller | None:
        """The caller whose token the header `Authorization` holds, None for any other."""
        if not self._tokens or (token := bearer_token(header)) is None:
            return None
        digest = sha256(token).digest()
        # How long the look-up takes tells of the hash, which nobody can choose; the comparison takes the same time for all.
        known, end, admitted = self._tokens.get(digest, (b"", 0.0, None))
        is_known = hmac.compare_digest(known, digest)
        return admitted if is_known and time() < end else None


def _identity(path: Path) -> tuple[int, ...] | None:
    """What differs when the file is another one, None without it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
