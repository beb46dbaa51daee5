"""What must hold before a server is started: the state folder is usable, the disk has room, the ports are free."""

import os
import shutil
import socket
import tempfile

import psutil

from mlops_assets.settings import Settings
from mlops_assets.stack.errors import StackError
from mlops_assets.stack.services import Service

MINIMUM_FREE_BYTES = 1_000_000_000
# A Unix socket's path is limited to 107 bytes on Linux and 103 on macOS; the smaller limit keeps a state folder portable.
MAXIMUM_SOCKET_PATH_BYTES = 103


def check_home(settings: Settings, minimum_free_bytes: int) -> None:
    """Create the state folder. Raises StackError when it cannot be written, its path is too long, or the disk is full."""
    for socket_path in (settings.postgres_directory / ".s.PGSQL.5432", settings.code_location_socket):
        length = len(os.fsencode(socket_path))
        if length > MAXIMUM_SOCKET_PATH_BYTES:
            raise StackError(
                f"The path of the state folder is too long for a Unix socket: {socket_path} has {length} bytes, "
                f"{MAXIMUM_SOCKET_PATH_BYTES} are allowed.",
                remedy="Set MLOPS_HOME to a shorter path.",
            )
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(settings.home).free
        if free < minimum_free_bytes:
            raise StackError(
                f"The disk of the state folder {settings.home} has {free / 1e9:.2f} GB left; "
                f"the stack needs at least {minimum_free_bytes / 1e9:.0f} GB.",
                remedy="Make room, or set MLOPS_HOME to a folder on another disk.",
            )
        with tempfile.TemporaryFile(dir=settings.home):
            pass
    except OSError as error:
        raise StackError(
            f"The state folder {settings.home} cannot be written: {error.strerror}.",
            remedy="Correct its permissions, or set MLOPS_HOME to a folder that you own.",
        ) from error


def check_port(service: Service) -> None:
    """Raise StackError when another process holds the port of `service`, naming it where the system tells us."""
    if service.port is None or _is_free(service.port):
        return
    raise StackError(
        f"Port {service.port}, which {service.name} needs, is taken by {_holder(service.port)}.",
        remedy=f"Stop that process, or choose another port: {service.port_variable}={_free_port()} mlops up",
    )


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As the servers do: a connection of a former server that is still closing does not hold the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another process (its name needs more rights to see)"
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid is not None:
            try:
                command = " ".join(psutil.Process(connection.pid).cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                command = "unknown command"
            return f"process {connection.pid} ({command[:120]})"
    return "another process (of another user)"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
