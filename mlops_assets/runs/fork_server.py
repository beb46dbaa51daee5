"""The process from which the workers of runs are forked: `python -m mlops_assets.runs.fork_server <socket>`.

It has loaded the definitions and the libraries of steps, and holds nothing else: no thread of Python's, no connection, no open file. A
forked worker shares that memory and begins with its run at once, where a new process imports for seconds. The server forks as soon as it
has the definitions, and loads the libraries until a request comes and afterwards: the first run after a start or a change waits for the
former alone. It begins anew when a file that it has loaded changes. See docs/adr/0037.
"""

import contextlib
import gc
import importlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.project import Project, current_project
from mlops_assets.runs import dbt_processes, worker

_log = logging.getLogger(__name__)

LIBRARIES = (
    "duckdb",
    "ibis.backends.sql.compilers",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mlflow.sklearn",
    "mlflow.tracking",
    "nannyml",
    "onnxruntime",
    "optuna",
    "pandas",
    "pandera.backends.ibis.builtin_checks",
    "pandera.ibis",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "skl2onnx",
    "skops.io",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sqlglot.dialects.duckdb",
)
"""What the steps of a run import when they need it. Before them come the definitions, which do without."""

_DEFINITIONS = {".py", ".yaml", ".yml"}
_MAXIMUM_REQUEST_BYTES = 1 << 20
_CHANGED = b"changed"
REPLY_SECONDS = 60.0
"""How long a launcher waits for an answer: a fork takes milliseconds."""


@dataclass(frozen=True)
class ForkRequest:
    """The inheritance of a worker: its locked file, its log, and the arguments of `mlops_assets.runs.worker`."""

    lock: int
    output: int
    directory: Path
    arguments: str


class ForkServerUnavailableError(Exception):
    """No worker was forked: the server does not run, is being started, or has loaded what has changed since."""


def fork_worker(path: Path, request: ForkRequest) -> int:
    """Have the server at the socket `path` fork the worker of a run. Returns the number of the worker's process.

    Raises ForkServerUnavailableError when there is certainly no worker, and OSError when that is not known.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(REPLY_SECONDS)
        try:
            connection.connect(str(path))
            socket.send_fds(connection, [b"\n"], [request.lock, request.output])
            connection.sendall(f"{request.directory}\n{request.arguments}".encode())
        except OSError as error:
            raise ForkServerUnavailableError(str(error)) from error
        # The server acts on the end of the request, not before.
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(100)
    if answer == _CHANGED:
        raise ForkServerUnavailableError("It has loaded files that have changed.")
    if not answer.isdigit():
        raise OSError(f"The fork server at {path} did not say whether it started a worker.")
    return int(answer)


def main(path: Path) -> None:
    """Serve at the socket `path` until stopped. A forked worker ends with its run."""
    path.unlink(missing_ok=True)
    project = current_project()
    importlib.import_module("dagster._cli")
    _load_definitions(project)
    with _listen(path) as listener:
        request = _serve(listener, _LoadedFiles(project))
    worker.main(request.lock, request.directory, request.arguments)


def _load_definitions(project: Project) -> None:
    """Load the definitions, unless they cannot be: a run says why."""
    from dagster._core.code_pointer import CodePointer
    from dagster._core.definitions.reconstruct import initialize_repository_def_from_pointer

    pointer = CodePointer.from_module(project.entry_point, "defs", str(project.root))
    try:
        repository = initialize_repository_def_from_pointer(pointer)
    except Exception:
        _log.exception("The definitions of %s cannot be loaded.", project.root)
        return
    # A run finds what was loaded where it would load it from.
    sys.modules[project.entry_point].defs = repository  # type: ignore[attr-defined]
    _log.warning("Loaded the definitions of %s.", project.root)


def _load_libraries(files: "_LoadedFiles") -> Iterator[str]:
    """Import what the steps of runs need, a library with each step. dbt comes after the definitions (mlops_assets/features/dagster_dbt.py)."""
    dbt_processes.load_dbt()
    files.add_modules()
    yield "dbt"
    for name in LIBRARIES:
        importlib.import_module(name)
        files.add_modules()
        yield name
    # Shared pages stay shared when nothing counts references anew.
    gc.collect()
    gc.freeze()
    _log.warning("Loaded the libraries of steps.")


def _listen(path: Path) -> socket.socket:
    """A socket at `path` that accepts connections as soon as the path exists."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(temporary))
    listener.listen()
    temporary.rename(path)
    return listener


def _serve(listener: socket.socket, files: "_LoadedFiles") -> ForkRequest:
    """Fork a worker for each request, and load libraries until it comes. Returns the request in the worker."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects workers that end
    libraries = _load_libraries(files)
    while True:
        while not select.select([listener], [], [], 0)[0] and next(libraries, ""):
            pass
        connection, _ = listener.accept()
        with connection:
            request = _receive(connection)
            if request is None:
                continue
            if files.have_changed():
                connection.sendall(_CHANGED)
                os.execv(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]])  # noqa: S606
            sys.stdout.flush()
            sys.stderr.flush()
            process = os.fork()
            if process == 0:
                _become_worker(request)
                return request
            os.close(request.lock)
            os.close(request.output)
            with contextlib.suppress(
                BrokenPipeError
            ):  # the launcher died: the worker has its lock, and whoever looks finds it alive
                connection.sendall(str(process).encode())


def _receive(connection: socket.socket) -> ForkRequest | None:
    """The request of a launcher, None when it did not send all of it."""
    content, descriptors, _, _ = socket.recv_fds(connection, _MAXIMUM_REQUEST_BYTES, 2)
    try:
        while part := connection.recv(_MAXIMUM_REQUEST_BYTES):
            content += part
    except ConnectionResetError:
        content = b""
    directory, _, arguments = content.decode(errors="replace").removeprefix("\n").partition("\n")
    if len(descriptors) != 2 or not arguments:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return ForkRequest(lock=descriptors[0], output=descriptors[1], directory=Path(directory), arguments=arguments)


def _become_worker(request: ForkRequest) -> None:
    """Make this process what a new one would be: a session of its own, its log, the signals' defaults, its own random numbers."""
    import numpy as np

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(request.output, 1)
    os.dup2(request.output, 2)
    os.close(request.output)
    np.random.seed()


class _LoadedFiles:
    """The files of the imported modules, and those that the definitions were read from, with their sizes and times of change then."""

    def __init__(self, project: Project):
        self._project = project
        self._definitions = _states(self._definition_files())
        self._modules: dict[str, tuple[int, int] | None] = {}
        self.add_modules()

    def add_modules(self) -> None:
        """Take in what was imported since."""
        files = {file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
        self._modules |= _states(files - self._modules.keys())

    def have_changed(self) -> bool:
        """Whether a file has changed since it was loaded, or the definitions would be read from others."""
        return _states(self._definition_files()) != self._definitions or _states(self._modules) != self._modules

    def _definition_files(self) -> Iterator[str]:
        project = self._project
        yield from (str(path) for path in project.definitions_directory.rglob("*") if path.suffix in _DEFINITIONS)
        yield from map(str, project.environments_directory.glob("*.env"))
        yield from map(str, (project.environment_file, project.root / "pyproject.toml", project.dbt_manifest))


def _states(files: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    """File -> its size and time of change, None where there is none."""
    return {file: _state(file) for file in files}


def _state(file: str) -> tuple[int, int] | None:
    try:
        # Of thousands of files before each fork: a path of each would take longer than the call.
        status = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


if __name__ == "__main__":
    name_lines()
    main(Path(sys.argv[1]))
