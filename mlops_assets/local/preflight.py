"""Conditions for starting a server: a usable state folder, room on the disk, free ports."""

import contextlib
import errno
import os
import shutil
import socket
import tempfile
import time

import psutil

from mlops_assets.core.errors import StackError
from mlops_assets.core.listening import Listening
from mlops_assets.core.settings import Settings
from mlops_assets.local import permissions
from mlops_assets.local.services import Service

DYING_SECONDS = 10.0
MINIMUM_FREE_BYTES = 1_000_000_000
# A Unix socket's path is limited to 107 bytes on Linux and 103 on macOS; the smaller limit keeps a state folder portable.
MAXIMUM_SOCKET_PATH_BYTES = 103


def check_home(settings: Settings, minimum_free_bytes: int) -> bool:
    """Create the state folder, and close it to other users. Returns whether it was open to them.

    Raises StackError when it cannot be written or closed, its path is too long, or the disk is full.
    """
    for socket_path in (settings.postgres_directory / ".s.PGSQL.5432", settings.code_location_socket):
        length = len(os.fsencode(socket_path))
        if length > MAXIMUM_SOCKET_PATH_BYTES:
            raise StackError(
                f"The path of the state folder is too long for a Unix socket: {socket_path} has {length} bytes, "
                f"{MAXIMUM_SOCKET_PATH_BYTES} are allowed.",
                remedy="Set MLOPS_HOME to a shorter path.",
            )
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    try:
        return permissions.close_folder(settings.home)
    except OSError as error:
        raise StackError(
            f"The state folder {settings.home} cannot be closed to other users: {error.strerror}.",
            remedy="Set MLOPS_HOME to a folder that you own.",
        ) from error


def check_installation(settings: Settings) -> None:
    """Raise StackError when nothing was ever started in the state folder: what reads an installation must not make one.

    One whose databases are elsewhere is there, whatever is in the folder.
    """
    if settings.postgres_url is None and not settings.dagster_home.is_dir():
        raise StackError(
            f"There is no installation in {settings.home}.",
            remedy="Set MLOPS_HOME to the state folder of one; mlops up makes a new one.",
        )


def check_port(listening: Listening, service: Service) -> None:
    """Raise StackError when another process holds the port of `service`, naming it where the system tells us.

    A process that was killed a moment ago holds it until its last thread has ended: it is waited for.
    """
    if service.port is None:
        return
    deadline = time.monotonic() + DYING_SECONDS
    while not _is_free(listening.address, service.port):
        holder = _holder(service.port)
        # The system does not tell the files of a process that is half gone, nor those of another user's.
        may_leave = holder is None or _is_dying(holder)
        if not may_leave or time.monotonic() > deadline:
            raise _taken(service, holder)
        time.sleep(0.05)


def _taken(service: Service, holder: psutil.Process | None) -> StackError:
    return StackError(
        f"Port {service.port}, which {service.name} needs, is taken by {_described(holder)}.",
        remedy=f"Stop that process, or choose another port: {service.port_variable}={_free_port()} mlops up",
    )


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as listener:
        # As the servers do: a connection of a former server that is still closing does not hold the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise StackError(
                    f"{address} is no address of this machine.", remedy="Correct MLOPS_LISTEN_ADDRESS: ip address shows them."
                ) from error
            return False
    return True


def _holder(port: int) -> psutil.Process | None:
    """The process that listens on the port, None where the system does not tell."""
    with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid is not None:
                return psutil.Process(connection.pid)
    return None


def _is_dying(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.cmdline()
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _described(holder: psutil.Process | None) -> str:
    if holder is None:
        return "another process (it needs more rights to see which)"
    try:
        command = " ".join(holder.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        command = "unknown command"
    return f"process {holder.pid} ({command[:120]})"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
