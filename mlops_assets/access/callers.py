"""Who has a token of its own: applications, with the solutions they may ask and how often, and persons, who look or operate.

A file holds the hashes of the tokens alone. A token is random and long, so that one SHA-256 keeps it: nobody can try what it may have been.
"""

import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

ALL_SOLUTIONS = "*"
"""In the place of names: the caller may ask every solution."""

PREFIX = "mlops_"
"""How a token begins, so that scanners of repositories and logs find it."""

Role = Literal["caller", "viewer", "operator"]
"""What a token is for: to ask for predictions, to look at Dagster and MLflow, or to operate there."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class TokenHash(msgspec.Struct, frozen=True, kw_only=True):
    """One token of a caller: its SHA-256, when it was made, and until when it is valid (None: until it is replaced)."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    created_at: _Moment
    expires_at: _Moment | None = None

    def is_valid(self, now: datetime) -> bool:
        """Whether the token is taken at this moment."""
        return self.expires_at is None or now < self.expires_at


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An application, what it may ask and how often, or a person with another role, who asks nothing of the online server.

    Without `requests_per_second` it is not limited; `burst` may come at once.
    """

    name: Annotated[str, msgspec.Meta(pattern=f"^{_NAME.pattern}$")]
    role: Role
    solutions: tuple[str, ...]
    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None
    burst: Annotated[int, msgspec.Meta(ge=1)]
    tokens: tuple[TokenHash, ...]

    def may_ask(self, solution: str) -> bool:
        """Whether the solution is one of the caller's."""
        return solution in self.solutions or ALL_SOLUTIONS in self.solutions


def hash_token(token: str) -> str:
    """The hash by which a token is known."""
    return sha256(token.encode()).hexdigest()


def read_callers(path: Path) -> list[Caller]:
    """The callers in the file `path`, none without it. Raises StackError when it cannot be read as such."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Caller])
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StackError(
            f"{path} cannot be read: {error.strerror}.", remedy="Make it readable by the user of the servers."
        ) from error
    except msgspec.MsgspecError as error:
        raise StackError(
            f"{path} is no file of callers: {error}.", remedy="Restore it from a backup, or delete it and add the callers again."
        ) from error


def add_caller(
    settings: Settings, name: str, solutions: tuple[str, ...], *, requests_per_second: float | None, burst: int
) -> str:
    """Add an application. Returns its token, which is kept nowhere. Raises StackError for a name that is taken or none."""
    return _add(settings, name, "caller", solutions, requests_per_second, burst)


def add_person(settings: Settings, name: str, role: Role) -> str:
    """Add a person who looks or operates. Returns the token, which is kept nowhere. Raises StackError as `add_caller` does."""
    return _add(settings, name, role, (), None, 1)


def _add(
    settings: Settings, name: str, role: Role, solutions: tuple[str, ...], requests_per_second: float | None, burst: int
) -> str:
    if not _NAME.fullmatch(name):
        raise StackError(
            f"{name!r} is no name of a caller.", remedy="Take letters, digits, dots, dashes and underscores, at most 63."
        )
    with _changing(settings) as callers:
        if name in callers:
            raise StackError(f"There is a caller {name!r} already.", remedy=f"A new token for it: mlops access rotate {name}")
        token, entry = _new_token()
        callers[name] = Caller(
            name=name, role=role, solutions=solutions, requests_per_second=requests_per_second, burst=burst, tokens=(entry,)
        )
    return token


def remove_caller(settings: Settings, name: str) -> None:
    """Remove a caller, whose tokens are taken no more. Raises StackError when there is none of this name."""
    with _changing(settings) as callers:
        del callers[_known(callers, name)]


def rotate_token(settings: Settings, name: str, overlap: timedelta) -> tuple[str, datetime]:
    """Give a caller a new token. Returns it, and until when those of before are valid too, at most for `overlap`.

    Raises StackError when there is no caller of this name.
    """
    now = datetime.now(UTC)
    until = now + overlap
    with _changing(settings) as callers:
        caller = callers[_known(callers, name)]
        token, entry = _new_token()
        former = [
            msgspec.structs.replace(each, expires_at=min(until, each.expires_at or until))
            for each in caller.tokens
            if each.is_valid(now)
        ]
        callers[name] = msgspec.structs.replace(caller, tokens=(*former, entry))
    return token, until


def _known(callers: dict[str, Caller], name: str) -> str:
    if name not in callers:
        raise StackError(f"There is no caller {name!r}.", remedy=f"There are: {', '.join(sorted(callers)) or 'none'}")
    return name


def _new_token() -> tuple[str, TokenHash]:
    token = PREFIX + secrets.token_urlsafe(32)
    return token, TokenHash(sha256=hash_token(token), created_at=datetime.now(UTC))


@contextmanager
def _changing(settings: Settings) -> Iterator[dict[str, Caller]]:
    """The callers by name, which are written at the end of the block. One process at a time changes them."""
    path = settings.callers_file
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        callers = {caller.name: caller for caller in read_callers(path)}
        yield callers
        # Readable by the owner alone, and complete when it gets its name: servers read it meanwhile.
        file, scratch = tempfile.mkstemp(dir=path.parent, prefix=".callers.")
        with os.fdopen(file, "wb") as output:
            output.write(msgspec.json.format(msgspec.json.encode(sorted(callers.values(), key=lambda caller: caller.name))))
            output.flush()
            os.fsync(file)
        Path(scratch).replace(path)
    finally:
        os.close(lock)
