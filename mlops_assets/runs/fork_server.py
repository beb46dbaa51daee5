"""The process from which the workers of runs are forked: `python -m mlops_assets.runs.fork_server <socket>`.

It has loaded the definitions and the libraries of steps, and holds nothing else: no thread of Python's, no connection, no open file. A
forked worker shares that memory and begins with its run at once, where a new process imports for seconds. The server begins anew when
a file that it has loaded changes. See docs/adr/0035.
"""

import contextlib
import functools
import gc
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.project import Project, current_project
from mlops_assets.runs import dbt_processes, worker

_log = logging.getLogger(__name__)

LIBRARIES = (
    # Looks for each of its thousand functions in all modules that are loaded: the first, it takes a second less.
    "skops.io",
    "dagster._cli",
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
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sqlglot.dialects.duckdb",
)
"""What the steps of a run import when they need it."""

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
    loaded = _load(project)
    fingerprint = _fingerprint(project)
    _log.warning("Loaded %s of %s.", "the definitions" if loaded else "the libraries, not the definitions,", project.root)
    with _listen(path) as listener:
        request = _serve(listener, functools.partial(_fingerprint, project), fingerprint)
    worker.main(request.lock, request.directory, request.arguments)


def _load(project: Project) -> bool:
    """Import what runs need. Returns whether the definitions could be loaded: a run that cannot load them says why."""
    for name in LIBRARIES:
        importlib.import_module(name)
    from dagster._core.code_pointer import CodePointer
    from dagster._core.definitions.reconstruct import initialize_repository_def_from_pointer

    pointer = CodePointer.from_module(project.entry_point, "defs", str(project.root))
    try:
        repository = initialize_repository_def_from_pointer(pointer)
    except Exception:
        _log.exception("The definitions cannot be loaded.")
        return False
    finally:
        # After the definitions, which do without dbt (mlops_assets/features/dagster_dbt.py).
        dbt_processes.load_dbt()
    # A run finds what was loaded where it would load it from.
    sys.modules[project.entry_point].defs = repository  # type: ignore[attr-defined]
    return True


def _listen(path: Path) -> socket.socket:
    """A socket at `path` that accepts connections as soon as the path exists."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(temporary))
    listener.listen()
    temporary.rename(path)
    return listener


def _serve(listener: socket.socket, current_fingerprint: Any, fingerprint: frozenset[Any]) -> ForkRequest:
    """Fork a worker for each request. Returns the request in the worker."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects workers that end
    # Shared pages stay shared when nothing counts references anew.
    gc.collect()
    gc.freeze()
    while True:
        connection, _ = listener.accept()
        with connection:
            request = _receive(connection)
            if request is None:
                continue
            if current_fingerprint() != fingerprint:
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


def _fingerprint(project: Project) -> frozenset[tuple[str, int, int]]:
    """The files that were loaded, with their sizes and times of change."""
    return frozenset(
        (str(path), status.st_size, status.st_mtime_ns)
        for path in _loaded_files(project)
        if (status := _status(path)) is not None
    )


def _loaded_files(project: Project) -> Iterator[Path]:
    """The files of the imported modules, and those that the definitions are read from."""
    for module in list(sys.modules.values()):
        if file := getattr(module, "__file__", None):
            yield Path(file)
    yield from (path for path in project.definitions_directory.rglob("*") if path.suffix in _DEFINITIONS)
    yield from project.environments_directory.glob("*.env")
    yield project.environment_file
    yield project.root / "pyproject.toml"
    yield project.dbt_manifest


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    name_lines()
    main(Path(sys.argv[1]))
