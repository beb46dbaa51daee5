"""The servers of a platform that somebody else runs, in containers for instance: commands ask them, and neither start nor stop one."""

import time
from collections.abc import Iterable

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local import probes
from mlops_assets.local.services import CODE_LOCATION, DAEMON, MLFLOW, ONLINE, WEBSERVER

_NEEDED = (WEBSERVER, CODE_LOCATION, MLFLOW)
"""What a command waits for. The online server is not needed by the others, and a run waits for the daemon by itself."""

_SHOWN = (MLFLOW, ONLINE, CODE_LOCATION, WEBSERVER, DAEMON)
_POLL_SECONDS = 1.0


def are_elsewhere(settings: Settings) -> bool:
    """Whether `MLOPS_DAGSTER_URL` names a platform that is not the stack of this machine."""
    return settings.dagster_server is not None


def refuse(settings: Settings, command: str) -> None:
    """Raise StackError where the servers are elsewhere: `command` would have to start or stop them."""
    if are_elsewhere(settings):
        raise StackError(
            f"{command} is for the servers of this machine, and MLOPS_DAGSTER_URL names others.",
            remedy="Start and stop them where they run. mlops status shows which answer.",
        )


def wait(settings: Settings, names: Iterable[str] = _NEEDED, *, seconds: float = 60.0) -> None:
    """Return once the servers of these names answer. Raises StackError naming one that has not within `seconds`."""
    deadline = time.monotonic() + seconds
    for name in names:
        while not probes.is_ready(settings, name, 0):
            if time.monotonic() > deadline:
                raise StackError(
                    f"{name} does not answer at {_addresses(settings)[name]}.",
                    remedy="Start it where it runs, or correct MLOPS_DAGSTER_URL, MLOPS_SERVING_URL or MLOPS_MLFLOW_URL.",
                )
            time.sleep(_POLL_SECONDS)


def status(settings: Settings) -> list[dict[str, object]]:
    """The entries of `control.status` for the servers that can be asked: `running`, `failed`, or `stopped` where none answers."""
    return [
        {"name": name, "state": _state(settings, name), "pid": None, "port": None, "url": _addresses(settings)[name]}
        for name in _SHOWN
    ]


def _state(settings: Settings, name: str) -> str:
    try:
        return "running" if probes.is_ready(settings, name, 0) else "stopped"
    except StackError:
        return "failed"


def _addresses(settings: Settings) -> dict[str, str]:
    """The address at which each server is asked: Dagster's webserver answers for the code location and the daemon."""
    dagster = settings.dagster_url
    return {
        WEBSERVER: dagster,
        CODE_LOCATION: dagster,
        DAEMON: dagster,
        MLFLOW: settings.mlflow_url,
        ONLINE: settings.serving_url,
    }
