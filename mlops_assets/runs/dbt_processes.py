"""dbt commands as processes that begin with dbt loaded: it takes almost two of the four processor seconds of a command.

They are forked by a server, a process that has imported dbt and does nothing else. A worker that the fork server made forks it from
itself, before it has a thread; any other process starts it with its first command: `python -m mlops_assets.runs.dbt_processes <socket>`.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from mlops_assets.core.named_lines import unname_lines

LIBRARIES = ("dbt.cli.main", "dbt.adapters.duckdb")
"""What a dbt command imports."""

_SERVERS: dict[int, tuple[socket.socket, "subprocess.Popen[bytes] | None"]] = {}
"""The number of a process -> its server. A process that is forked from another one has its own."""

_ASKING = threading.Lock()
_PARENT_SECONDS = 5.0
_MAXIMUM_REQUEST_BYTES = 1 << 20
_ENDED_BY_A_SIGNAL = -signal.SIGKILL


def load_dbt() -> None:
    """Import what a dbt command imports, and have dbt make the schemas by which each command checks its files."""
    for name in LIBRARIES:
        importlib.import_module(name)
    from dbt.adapters.duckdb.credentials import DuckDBCredentials
    from dbt.contracts.project import Configuration, PackageConfig, Project, ProjectFlags

    for schema in (Configuration, DuckDBCredentials, PackageConfig, Project, ProjectFlags):
        schema.json_schema()


class DbtProcess:
    """A running dbt command with what dagster-dbt uses of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], number: int, output: BinaryIO, answers: RawIOBase):
        self.args = ["dbt", *arguments]
        self.stdout = output
        self.returncode: int | None = None
        self._number = number
        self._answers = answers

    def wait(self, timeout: float | None = None) -> int:
        """The exit code once the command has ended, a negative number when it could not say one. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not _is_readable(self._answers, timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._answers:
                self.returncode = int(self._answers.readline() or _ENDED_BY_A_SIGNAL)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the command, unless it has ended."""
        if self.returncode is None and not _is_readable(self._answers, 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._number, number)


def start_dbt(arguments: Sequence[str], *, directory: Path, environment: Mapping[str, str]) -> DbtProcess:
    """Start a dbt command in `directory`. All that it prints goes to its `stdout`."""
    request = {"arguments": list(arguments), "directory": str(directory), "environment": dict(environment)}
    # The server takes one request at a time.
    with _ASKING:
        server = _SERVERS.get(os.getpid())
        process = _ask(server[0], arguments, request) if server else None
        # Without an answer the server was killed, and no command was started.
        process = process or _ask(_start_server(), arguments, request)
    if process is None:
        raise OSError("The process that dbt commands are forked from ended at once.")
    return process


def _ask(server: socket.socket, arguments: Sequence[str], request: Mapping[str, Any]) -> DbtProcess | None:
    """Have the server fork a command. Returns None when it does not answer."""
    reading, writing = os.pipe()
    output = os.fdopen(reading, "rb")
    ours, theirs = socket.socketpair()
    content = f"{json.dumps(request)}\n".encode()
    with ours, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        with theirs, os.fdopen(writing, "wb"):
            sent = socket.send_fds(server, [content], [writing, theirs.fileno()])
            server.sendall(content[sent:])
        answers = ours.makefile("rb", buffering=0)
        if number := answers.readline():
            return DbtProcess(arguments, int(number), output, answers)
    output.close()
    return None


def _is_readable(file: RawIOBase | socket.socket, seconds: float | None) -> bool:
    return bool(select.select([file], [], [], seconds)[0])


def _start_server() -> socket.socket:
    """Start a server as a new process. It ends with this one."""
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-P", "-m", "mlops_assets.runs.dbt_processes", str(theirs.fileno())]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        server = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    _SERVERS[os.getpid()] = ours, server
    return ours


def fork_server(lock: int) -> None:
    """Fork a server from this process, which has imported dbt and has no thread. The server lets go of the file `lock`."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        os.close(lock)
        _serve(theirs)
    theirs.close()
    _SERVERS[os.getpid()] = ours, None


def _serve(connection: socket.socket) -> NoReturn:
    """Fork a process for each request, until nobody can send one."""
    parent = os.getppid()
    # Who started a command tells it of an interrupt, and the kernel collects commands that end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # A fork of the parent may hold the connection open.
    while os.getppid() == parent:
        if not _is_readable(connection, _PARENT_SECONDS):
            continue
        content, descriptors, _, _ = socket.recv_fds(connection, _MAXIMUM_REQUEST_BYTES, 2)
        while content and not content.endswith(b"\n"):
            content += connection.recv(_MAXIMUM_REQUEST_BYTES)
        if not content:
            break
        if os.fork() == 0:
            connection.close()
            _execute(json.loads(content), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    os._exit(0)


def _execute(request: Mapping[str, Any], output: int, answers: int) -> NoReturn:
    """Become the process of a dbt command, and say its number and its exit code."""
    os.write(answers, f"{os.getpid()}\n".encode())
    # For whoever lists processes, where the kernel lets a process name itself.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("dbt")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    unname_lines()
    code = 1
    try:
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = ["dbt", *request["arguments"]]
        importlib.import_module("dbt.cli.main").cli(prog_name="dbt")
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        # As in a process of its own.
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(answers, f"{code}\n".encode())
    os._exit(code)


if __name__ == "__main__":
    load_dbt()
    _serve(socket.socket(fileno=int(sys.argv[1])))
