"""The client of supervisor, which starts, restarts and stops the servers: everything that speaks its protocol."""

import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from typing import Any

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.environment import process_environment
from mlops_assets.local.services import POSTGRES

# Set for the processes that supervisor starts and inherited by all of their children: this is how `mlops down` finds a run
# worker or a server that lost its parent. Its value is the state folder.
MARKER_VARIABLE = "MLOPS_SUPERVISED_HOME"

START_TIMEOUT_SECONDS = 15.0

BACKOFF = "BACKOFF"
"""The state of a process that ended as soon as it had started, until it is started again."""


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """What supervisor knows of a process: its state name (`RUNNING`, `STARTING`, `BACKOFF`, `FATAL`, ...) its pid or
    None, and when it was started (Unix time in whole seconds, 0 when it never was).
    """

    name: str
    state: str
    pid: int | None
    started_at: int


class Supervisor:
    """The supervisor of one state folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def _proxy(self) -> Any:
        """A new connection for every call: one that broke when a supervisor was killed could not be used again."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self._settings.supervisor_socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def is_running(self) -> bool:
        """Whether a supervisor answers on the socket; a socket that a killed one left behind does not."""
        if not self._settings.supervisor_socket.exists():
            return False
        try:
            return self._proxy.getState()["statename"] == "RUNNING"
        except OSError:
            return False

    def pid(self) -> int:
        """The process number of the supervisor."""
        return int(self._proxy.getPID())

    def launch(self) -> None:
        """Start the supervisor in the background. Raises StackError when it does not come up."""
        self._settings.supervisor_socket.unlink(missing_ok=True)
        environment = process_environment(self._settings) | {MARKER_VARIABLE: str(self._settings.home)}
        command = [sys.executable, "-m", "mlops_assets.local.supervisord", "-c", str(self._settings.supervisor_configuration)]
        started = subprocess.run(
            command, env=environment, capture_output=True, text=True, start_new_session=True, check=False, cwd=self._settings.home
        )
        remedy = f"See its log: {self._settings.log_directory / 'supervisord.log'}"
        if started.returncode != 0:
            raise StackError(f"supervisord did not start: {(started.stderr or started.stdout).strip()}", remedy=remedy)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.is_running():
            if time.monotonic() > deadline:
                raise StackError(f"supervisord did not answer within {START_TIMEOUT_SECONDS:.0f} s.", remedy=remedy)
            time.sleep(0.05)

    def processes(self) -> dict[str, ProcessState]:
        """The state of every process, by name."""
        information: list[dict[str, Any]] = self._proxy.getAllProcessInfo()
        return {
            entry["name"]: ProcessState(
                name=entry["name"], state=entry["statename"], pid=entry["pid"] or None, started_at=entry["start"]
            )
            for entry in information
        }

    def start(self, name: str) -> None:
        """Start a process, without waiting for it."""
        self._proxy.startProcess(name, False)

    def stop(self, name: str) -> None:
        """Stop a process, or its next start, and wait for its end; nothing when it does not run."""
        process = self.processes()[name]
        if process.pid is not None or process.state == BACKOFF:
            self._proxy.stopProcess(name, True)

    def restart(self, name: str) -> None:
        """Stop a process, wait for its end, and start it again without waiting."""
        self.stop(name)
        self._proxy.startProcess(name, False)

    def signal(self, name: str, signal: str) -> None:
        """Send a process, which runs, a signal such as `HUP`."""
        self._proxy.signalProcess(name, signal)

    def shut_down(self) -> None:
        """Ask the supervisor to stop every process and then itself; returns at once."""
        # All side by side: by itself it would stop one after the other. Postgres, which the others need to end well, comes last.
        for process in self.processes().values():
            if process.name != POSTGRES and process.state in {"STARTING", "RUNNING"}:
                self._proxy.stopProcess(process.name, False)
        self._proxy.shutdown()
