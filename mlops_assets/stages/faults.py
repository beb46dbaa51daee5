"""The rule for errors in a step: one list of those that are retried, for every asset.

A step that loses a server, a lock or its memory may pass on a second try, and one whose disk is full when somebody has made room. Any
other error, ours or a library's, comes back unchanged: it ends the step with one message, and is not retried.
"""

import errno
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import dagster as dg

from mlops_assets.clients.champion import RegistryUnreachableError
from mlops_assets.clients.publishing import EventStreamError
from mlops_assets.core.patience import LOST_CONNECTION
from mlops_assets.online_store.store import PushConflictError
from mlops_assets.stages.check_events import CheckEvents
from mlops_assets.stages.execution import permanent_failure

NO_ROOM = os.strerror(errno.ENOSPC)
"""What the system says of a full disk, whichever library or command repeats it."""

ROOM_SECONDS, _ROOM_TRIES = 15.0, 20
"""A step tries for five minutes whether there is room again. Others on that disk wait too."""

_TRANSIENT = (MemoryError, OSError, EventStreamError, PushConflictError, RegistryUnreachableError)
_PERMANENT_OF_THESE = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)

_TRANSIENT_NAMES = {
    # By name: a step that uses none of these libraries need not import them.
    "duckdb": {"OperationalError", "InterruptException"},
    "psycopg2": {"OperationalError", "InterfaceError"},
    "sqlalchemy": {"OperationalError", "InterfaceError", "TimeoutError"},
    "redis": {"ConnectionError", "TimeoutError", "ClusterError", "RedisClusterException"},
    "lmdb": {"LockError", "MapResizedError", "ReadersFullError"},
    "nats": {"Error"},
    "botocore": {"ConnectionError", "HTTPClientError"},
    "concurrent": {"BrokenExecutor"},
    "subprocess": {"TimeoutExpired"},
}

_MLFLOW_CODES = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "DEADLINE_EXCEEDED",
    "IO_ERROR",
    "ABORTED",
}
"""What MLflow answers when it, its database or the way to it is in trouble; the other codes are about the request."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def is_transient(error: BaseException) -> bool:
    """Whether `error`, or an error that it was raised from, may be gone on a second try."""
    if _is_transient(error):
        return True
    return error.__cause__ is not None and is_transient(error.__cause__)


def lacks_room(error: BaseException) -> bool:
    """Whether the disk, or the memory of a Redis, was full, as `error` or one that it was raised from tells."""
    if NO_ROOM in str(error) or _is_full_redis(error):
        return True
    return error.__cause__ is not None and lacks_room(error.__cause__)


def _is_full_redis(error: BaseException) -> bool:
    """Whether a Redis takes no writes: it could not save to its disk, which it tells by this word alone, or has no memory left."""
    kind = type(error)
    return kind.__module__ == "redis.exceptions" and (kind.__name__ == "OutOfMemoryError" or "MISCONF" in str(error))


def step(compute: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Let the function of an asset end at once, with a message, at an error that trying again cannot mend.

    What it yields or returns reaches Dagster by `CheckEvents`, with results of checks and data versions by partition.
    Goes directly below the decorator `dg.asset` or `dg.multi_asset`.
    """
    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def generate(*args: Any, **keywords: Any) -> Iterator[Any]:
            events = CheckEvents()
            try:
                for event in compute(*args, **keywords):
                    yield from events.of(event)
            except Exception as error:  # none is swallowed: each is raised, as it is or as the failure that takes its place
                if (evaluated := _evaluated(error)) is error:
                    raise
                raise evaluated from error

        return _with_signature(generate, compute)  # type: ignore[return-value]

    @functools.wraps(compute)
    def run(*args: _Parameters.args, **keywords: _Parameters.kwargs) -> _Result:
        try:
            result = compute(*args, **keywords)
            return CheckEvents().of(result) if isinstance(result, dg.MaterializeResult) else result  # type: ignore[return-value]
        except Exception as error:  # as above
            if (evaluated := _evaluated(error)) is error:
                raise
            raise evaluated from error

    return _with_signature(run, compute)


def _with_signature(wrapper: _Function, compute: Callable[..., Any]) -> _Function:
    """Give `wrapper` the signature of `compute`: Dagster asks for it twenty times an asset, and would work it out each time."""
    wrapper.__signature__ = inspect.signature(compute)  # type: ignore[attr-defined]
    return wrapper


def describe_error(error: BaseException) -> str:
    """The message of one of our own errors, which names the remedy; of a library's error its class and the first line."""
    if type(error).__module__.partition(".")[0] == __name__.partition(".")[0]:
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _evaluated(error: Exception) -> Exception:
    """`error` itself when Dagster should see it as it is, otherwise the failure that takes its place."""
    if lacks_room(error):
        return dg.RetryRequested(max_retries=_ROOM_TRIES, seconds_to_wait=ROOM_SECONDS)
    if isinstance(error, dg.Failure | dg.DagsterError | dg.RetryRequested) or is_transient(error):
        return error
    message = describe_error(error)
    if type(error).__module__.partition(".")[0] != __name__.partition(".")[0]:
        message += ". Trying again would give the same: correct the data or the configuration; the whole error is below."
    return permanent_failure(message)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, _TRANSIENT):
        return not isinstance(error, _PERMANENT_OF_THESE)
    for kind in type(error).__mro__:
        library = kind.__module__.partition(".")[0].removeprefix("_")
        if kind.__name__ in _TRANSIENT_NAMES.get(library, ()):
            return True
        if library == "mlflow" and kind.__name__ == "MlflowException":
            return getattr(error, "error_code", None) in _MLFLOW_CODES
        if library == "duckdb" and LOST_CONNECTION.search(str(error)):
            return True
    return False
