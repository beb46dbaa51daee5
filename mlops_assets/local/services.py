"""The servers of the local stack: their names, addresses and logs. How each is started is in `templates/`."""

from dataclasses import dataclass
from pathlib import Path

from mlops_assets.core.settings import Settings

POSTGRES = "postgres"
NATS = "nats"
MLFLOW = "mlflow"
ONLINE = "online"
STREAM = "stream"
SHIPPER = "shipper"
CODE_LOCATION = "code-location"
FORK_SERVER = "fork-server"
WEBSERVER = "dagster-webserver"
DAEMON = "dagster-daemon"


@dataclass(frozen=True, kw_only=True)
class Service:
    """One server under supervisor.

    `port` and `port_variable` (the setting that changes it) are None for a server that listens on a Unix socket only;
    `url` is what a person opens or a client connects to, None when there is nothing to open.
    """

    name: str
    log: Path
    port: int | None
    port_variable: str | None
    url: str | None


def services(settings: Settings) -> list[Service]:
    """The servers of this installation in the order they start; those that the settings point elsewhere are left out."""
    found = []
    if settings.postgres_url is None:
        found.append(_service(settings, POSTGRES, None, None, None))
    if settings.nats_url is None:
        found.append(_service(settings, NATS, settings.nats_port, "MLOPS_NATS_PORT", settings.nats_server_url))
    if settings.mlflow_server is None:
        found.append(_service(settings, MLFLOW, settings.mlflow_port, "MLOPS_MLFLOW_PORT", settings.mlflow_url))
    return [
        *found,
        _service(settings, ONLINE, settings.serving_port, "MLOPS_SERVING_PORT", settings.serving_url),
        _service(settings, STREAM, None, None, None),
        _service(settings, SHIPPER, None, None, None),
        _service(settings, CODE_LOCATION, None, None, None),
        _service(settings, WEBSERVER, settings.dagster_port, "MLOPS_DAGSTER_PORT", settings.dagster_url),
        _service(settings, DAEMON, None, None, None),
        *([_service(settings, FORK_SERVER, None, None, None)] if settings.warm_runs else []),
    ]


def _service(settings: Settings, name: str, port: int | None, port_variable: str | None, url: str | None) -> Service:
    return Service(name=name, log=settings.log_directory / f"{name}.log", port=port, port_variable=port_variable, url=url)
