"""Starting, stopping and inspecting the local stack as a whole: what `mlops up`, `down`, `status` and `reload` do."""

import contextlib
import fcntl
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import psutil

from mlops_assets.access.credentials import PLATFORM_ACCOUNT
from mlops_assets.access.openid import Provider
from mlops_assets.access.tls import check_listening
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local import (
    adoption,
    configuration,
    durability,
    environment_owner,
    interrupted_runs,
    leftovers,
    logs,
    permissions,
    postgres,
    preflight,
    probes,
    servers_elsewhere,
    version_check,
)
from mlops_assets.local.services import CODE_LOCATION, DAEMON, NATS, POSTGRES, WEBSERVER, Service, services
from mlops_assets.local.supervisor import BACKOFF, ProcessState, Supervisor

STORAGE = (POSTGRES, NATS)
"""The servers that the others need."""

READY_TIMEOUT_SECONDS = 120.0
RELOAD_TIMEOUT_SECONDS = 600.0
"""The webserver answers when it has loaded the definitions, on a busy machine after minutes; one that is gone refuses at once."""
STOP_TIMEOUT_SECONDS = 60.0
END_RUNS_SECONDS = 10.0
POLL_SECONDS = 0.1
FAILED_STARTS = 4
"""After so many starts that fail `up` gives up, though supervisor goes on."""

# Called with a service's name and what happened to it: "starting" or "ready"; with the state folder when it was "closed" to others, with one
# below it that is "buffered": its file system keeps what is written in memory for a while.
Listener = Callable[[str, str], None]


def up(settings: Settings, listener: Listener) -> bool:
    """Start what is not running and wait until every server answers. Returns whether anything had to be started.

    Raises StackError when the state folder, the disk, a port, the certificate or the client of single sign-on is unusable, when the state is
    newer than this release or has to be migrated, when a server does not come up (with the end of its log), when the stack runs with other
    settings than these, or, once it runs, when the dbt project cannot be parsed.
    """
    servers_elsewhere.refuse(settings, "mlops up")
    if preflight.check_home(settings, preflight.MINIMUM_FREE_BYTES):
        listener(str(settings.home), "closed")
    with _lock(settings):
        environment_owner.claim_folder(settings)
        version_check.begin_start(settings)
        unsigned = adoption.needs_signing(settings)
        supervisor = Supervisor(settings)
        files = configuration.render_files(settings)
        unprepared = None
        if is_launched := not supervisor.is_running():
            try:
                _prepare(settings)
            except StackError as error:
                unprepared = error
            _launch(settings, supervisor, files, listener)
        else:
            _check_unchanged(files)
        try:
            started = _start_stopped(settings, supervisor, listener)
        except version_check.StateVersionError:
            if is_launched:
                _shut_down(settings, supervisor)
            raise
        if unsigned:
            adoption.sign_former_versions(settings)
        if unprepared is not None:
            # The servers answer with what is deployed; the definitions are those of before.
            raise unprepared
        return started


def ensure_up(settings: Settings) -> None:
    """Start what is missing of the stack, silently; wait for servers that are elsewhere. Raises StackError as `up` does."""
    if servers_elsewhere.are_elsewhere(settings):
        servers_elsewhere.wait(settings)
    elif not _is_complete(settings):
        up(settings, _silent)


def _is_complete(settings: Settings) -> bool:
    """Whether every server runs and answers, with these settings and this release: what a start does besides was done by the one before.

    Most commands find it so, and a rollback does not wait then for what `up` looks at: databases, the catalog of the lake, runs.
    """
    supervisor = Supervisor(settings)
    if not supervisor.is_running() or adoption.needs_signing(settings) or not version_check.is_of_this_release(settings):
        return False
    version_check.begin_start(settings)
    _check_unchanged(configuration.render_files(settings))
    processes = supervisor.processes()
    wanted = [processes[service.name] for service in services(settings)]
    return all(process.pid is not None for process in wanted) and all(_is_ready(settings, process) for process in wanted)


def ensure_ready(settings: Settings, name: str) -> None:
    """Start what is missing of the stack unless the server `name` is ready: it answers though others are out of order.

    Raises StackError as `up` does.
    """
    if servers_elsewhere.are_elsewhere(settings):
        servers_elsewhere.wait(settings, [name])
        return
    supervisor = Supervisor(settings)
    process = supervisor.processes().get(name) if supervisor.is_running() else None
    if process is None or not _is_ready(settings, process):
        ensure_up(settings)


@contextlib.contextmanager
def storage(settings: Settings) -> Iterator[None]:
    """Have Postgres and the event stream answer inside the block. They are started for it, alone, unless the stack runs.

    Raises StackError as `up` does.
    """
    stored = [service for service in services(settings) if service.name in STORAGE]
    if not stored:
        yield  # both are elsewhere, and not ours to start
        return
    supervisor = Supervisor(settings)
    if supervisor.is_running():
        _wait(supervisor, stored, lambda process: _is_ready(settings, process), _silent)
        yield
        return
    preflight.check_home(settings, preflight.MINIMUM_FREE_BYTES)
    with _lock(settings):
        _launch(settings, supervisor, configuration.render_files(settings), _silent)
        try:
            _start(settings, supervisor, stored, _silent)
            _wait(supervisor, stored, lambda process: _is_ready(settings, process), _silent)
            yield
        finally:
            _shut_down(settings, supervisor)


def down(settings: Settings) -> int:
    """Stop the stack and everything it started, run workers included. Returns how many processes were ended.

    Runs are ended first, while there is a database to record it: they go on at the next `up`.
    """
    servers_elsewhere.refuse(settings, "Stopping the stack")
    if not settings.home.exists():
        return 0
    with _lock(settings):
        supervisor = Supervisor(settings)
        belonging = leftovers.find_processes(settings)
        if supervisor.is_running():
            supervisor.stop(DAEMON)  # it would start them again
            interrupted_runs.end_runs(settings, END_RUNS_SECONDS)
        _shut_down(settings, supervisor)
        return len(belonging)


def reload(settings: Settings) -> None:
    """Parse the dbt project and restart the server of the code location, then wait until the changed definitions are loaded.

    Runs in progress go on with the definitions that they began with. Raises StackError when the stack is down, or when the dbt project
    or the definitions cannot be loaded.
    """
    servers_elsewhere.refuse(settings, "mlops reload")
    supervisor = Supervisor(settings)
    if not supervisor.is_running():
        raise StackError("The stack is not running.", remedy="Start it: mlops up")
    if settings.nats_url is None and settings.listening.has_tls:
        supervisor.signal(NATS, "HUP")  # it reads a renewed certificate
    _prepare(settings)
    supervisor.restart(CODE_LOCATION)
    code_location = [service for service in services(settings) if service.name == CODE_LOCATION]
    _wait(supervisor, code_location, lambda process: probes.code_server_is_listening(settings), _silent)
    probes.ask_for_reload(settings, RELOAD_TIMEOUT_SECONDS)
    _wait(supervisor, code_location, lambda process: _is_ready(settings, process), _silent)


def status(settings: Settings) -> list[dict[str, object]]:
    """One entry a server: `name`, `state` (`running`, `starting`, `failed` or `stopped`), `pid`, `port` and `url` (None without).

    `running` means that the server answers, not that its process exists.
    """
    if servers_elsewhere.are_elsewhere(settings):
        return servers_elsewhere.status(settings)
    supervisor = Supervisor(settings)
    processes = supervisor.processes() if supervisor.is_running() else {}
    entries: list[dict[str, object]] = []
    for service in services(settings):
        process = processes.get(service.name)
        if process is None or process.state in {"STOPPED", "STOPPING"}:
            state = "stopped"
        elif process.state in {BACKOFF, "FATAL", "EXITED", "UNKNOWN"}:
            state = "failed"
        else:
            state = _state_by_probe(settings, process)
        pid = process.pid if process is not None else None
        entries.append({"name": service.name, "state": state, "pid": pid, "port": service.port, "url": service.url})
    return entries


def _shut_down(settings: Settings, supervisor: Supervisor) -> None:
    """End the supervisor, what it started, and what others left behind."""
    if supervisor.is_running():
        process = psutil.Process(supervisor.pid())
        supervisor.shut_down()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(STOP_TIMEOUT_SECONDS)
    leftovers.end_processes(leftovers.find_processes(settings))
    settings.supervisor_socket.unlink(missing_ok=True)


def _is_ready(settings: Settings, process: ProcessState) -> bool:
    return probes.is_ready(settings, process.name, process.started_at)


def _state_by_probe(settings: Settings, process: ProcessState) -> str:
    try:
        return "running" if _is_ready(settings, process) else "starting"
    except StackError:
        return "failed"


def _check_unchanged(files: dict) -> None:
    different = configuration.changed_files(files)
    if different:
        raise StackError(
            f"The stack runs with other settings than these: they would change {', '.join(path.name for path in different)}.",
            remedy="Use the settings it was started with (MLOPS_* in the environment or in .env), "
            "or restart it with these: mlops down && mlops up",
        )


def _launch(settings: Settings, supervisor: Supervisor, files: dict, listener: Listener) -> None:
    # What a killed supervisor left behind would hold the ports and the data folder.
    leftovers.end_processes(leftovers.find_processes(settings))
    version_check.check_folder(settings)
    check_listening(settings.listening)
    if settings.sign_on is not None:
        Provider(settings.sign_on)
    for service in services(settings):
        preflight.check_port(settings.listening, service)
    for directory in (settings.log_directory, settings.dagster_home):
        directory.mkdir(parents=True, exist_ok=True)
    for directory in durability.make_durable(settings):
        listener(str(directory), "buffered")
    if settings.postgres_url is None:
        postgres.initialise_data_directory(settings)
        postgres.remove_stale_pid_file(settings)
    if settings.nats_url is None:
        from mlops_assets.clients.event_stream_callers import write_callers

        keep_event_streams(settings)
        write_callers(settings)
    configuration.write_files(files)
    # Whatever the caller's umask made them.
    permissions.close_folder(settings.home)
    supervisor.launch()


def keep_event_streams(settings: Settings) -> None:
    """Give the streams of an installation whose event stream had no accounts to the platform's account. The server does not run."""
    former, current = (settings.home / "nats" / "jetstream" / account for account in ("$G", PLATFORM_ACCOUNT))
    if former.exists() and not current.exists():
        former.rename(current)


def _start_stopped(settings: Settings, supervisor: Supervisor, listener: Listener) -> bool:
    """Start the servers that do not run: first those that the others need, then the others side by side."""
    wanted = services(settings)
    first = [service for service in wanted if service.name in STORAGE]
    others = [service for service in wanted if service not in first]
    started = _start(settings, supervisor, first, listener)
    _wait(supervisor, first, lambda process: _is_ready(settings, process), listener)
    postgres.create_databases(settings)
    environment_owner.claim_servers(settings)
    environment_owner.claim_stores(settings)
    from mlops_assets.local.lake_catalog import ensure_catalog

    ensure_catalog(settings)
    version_check.check_state(settings)
    processes = supervisor.processes()
    served = any(processes[name].pid is not None for name in (DAEMON, WEBSERVER))
    interrupted_runs.recover_runs(settings, served=served)
    started = _start(settings, supervisor, others, listener) or started
    _wait(supervisor, others, lambda process: _is_ready(settings, process), listener)
    return started


def _start(settings: Settings, supervisor: Supervisor, wanted: list[Service], listener: Listener) -> bool:
    processes = supervisor.processes()
    stopped = [service for service in wanted if processes[service.name].state in {BACKOFF, "STOPPED", "EXITED", "FATAL"}]
    for service in stopped:
        preflight.check_port(settings.listening, service)
        listener(service.name, "starting")
        # Not when supervisor would try again, which may be in minutes.
        supervisor.restart(service.name)
    return bool(stopped)


def _prepare(settings: Settings) -> None:
    # Here, not above: it imports for half a second what most commands do without.
    from mlops_assets.local.prepare import prepare

    prepare(settings)


def _silent(name: str, event: str) -> None:
    """The listener of what nobody watches."""


def _wait(supervisor: Supervisor, wanted: list[Service], is_ready: Callable[[ProcessState], bool], listener: Listener) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    waiting, starts = list(wanted), defaultdict[str, set[int]](set)
    while waiting:
        processes = supervisor.processes()
        for service in list(waiting):
            process = processes[service.name]
            starts[service.name].add(process.started_at)
            if process.state == "FATAL" or (process.state == BACKOFF and len(starts[service.name]) >= FAILED_STARTS):
                raise _failure(service, f"{service.name} does not start")
            if process.pid is not None and is_ready(process):
                waiting.remove(service)
                listener(service.name, "ready")
        if waiting and time.monotonic() > deadline:
            raise _failure(waiting[0], f"{waiting[0].name} was not ready within {READY_TIMEOUT_SECONDS:.0f} s")
        if waiting:
            time.sleep(POLL_SECONDS)


def _failure(service: Service, problem: str) -> StackError:
    lines = logs.last_lines(service.log, 15)
    shown = "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"
    return StackError(
        f"{problem}. The end of its log:\n{shown}",
        remedy=f"The whole log: {service.log}\nCorrect the cause, then try again: mlops up",
    )


@contextlib.contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """One `up` or `down` at a time for a state folder; the second waits for the first."""
    with (settings.home / "stack.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
