"""Hot restart of the online server: those that answer go on when the process that started them is gone, until their successors answer.

They have one listening socket, which each of them hands over a Unix socket to the process that is started next. No connection is refused
meanwhile, and none that the system has accepted is lost with the process that would have been next to take it.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import psutil

from mlops_assets.serving.reports import read_reports

WAIT_SECONDS = 60.0
"""Without a successor a process ends so long after the one that started it."""

_SUFFIX = ".sock"
_ANSWER_SECONDS = 5.0
_log = logging.getLogger(__name__)


class ListenerOffer:
    """Hands the listening socket, as `listener` gives its file descriptor, to each process that asks in the folder `directory`."""

    def __init__(self, directory: Path, listener: Callable[[], int]):
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._listener = directory / f"{os.getpid()}{_SUFFIX}", listener
        self._path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(self._path))
        self._server.listen()
        threading.Thread(target=self._answer, name="listener offer", daemon=True).start()

    def withdraw(self) -> None:
        """Hand it to nobody any more."""
        self._path.unlink(missing_ok=True)
        self._server.close()

    def _answer(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # withdrawn
            with connection:
                try:
                    socket.send_fds(connection, [b"listener"], [self._listener()])
                except (OSError, IndexError) as error:
                    # Whoever asks tries the next one, or binds the port itself.
                    _log.info("The listening socket was not handed on: %s", error)


def take_listener(directory: Path) -> socket.socket | None:
    """The listening socket of a process that offers it in `directory`; None when there is none."""
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            try:
                connection.connect(str(path))
                _, files, _, _ = socket.recv_fds(connection, 16, 1)
            except (FileNotFoundError, ConnectionError):
                # Of a process that was killed, or has just ended.
                path.unlink(missing_ok=True)
                continue
            except TimeoutError:
                continue  # it is stopped, and may go on
        if files:
            return socket.socket(fileno=files[0])
    return None


class Succession:
    """Tells a process when it has to end since the one that started it, `is_orphaned`, is gone.

    With `successors`, when so many others report to `directory` that they answer, or nobody comes; without any, at once.
    """

    def __init__(self, directory: Path, is_orphaned: Callable[[], bool], successors: int):
        self._directory, self._is_orphaned, self._successors = directory, is_orphaned, successors
        self._deadline: float | None = None

    def is_over(self) -> bool:
        """Whether the process has to end now."""
        if not self._is_orphaned():
            return False
        if self._deadline is None:
            self._deadline = monotonic() + WAIT_SECONDS
            _log.warning("The process that started this one has ended.")
        return len(self._present()) >= self._successors or monotonic() > self._deadline

    def _present(self) -> list[int]:
        """Those that answer and were started by another process than this one, and not left by the same."""
        others = []
        for report in read_reports(self._directory):
            with contextlib.suppress(psutil.NoSuchProcess):
                if report.channel == "online" and psutil.Process(report.pid).ppid() != os.getppid():
                    others.append(report.pid)
        return others
