"""The faults that are done to a running installation, each to be undone by itself or by `mlops up`. No tests here."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import chaos
import psutil
from machine import Machine
from running_stack import Platform
from waiting import wait_for

from mlops_assets.local import leftovers
from mlops_assets.local.environment import scripts_directory
from mlops_assets.local.services import NATS, POSTGRES
from mlops_assets.local.supervisor import Supervisor
from mlops_assets.runs.workers import Workers, WorkerState

SERVERS = ("nats", "mlflow", "online", "stream", "shipper", "code-location", "fork-server", "dagster-webserver", "dagster-daemon")
AWAY_SECONDS = 60.0
STOPPED_SECONDS = 20.0
FULL_SECONDS = 45.0
SLOW_SECONDS = 45.0
JUMP_SECONDS = 3600


@dataclass(frozen=True)
class Installation:
    """The running stack and its machine."""

    platform: Platform
    machine: Machine

    def up(self) -> None:
        """Call `mlops up`, for processes that have the clock of the machine."""
        command = self.machine.command_with_clock([str(scripts_directory() / "mlops"), "up"])
        done = subprocess.run(command, env=self.platform.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def supervisor(self) -> Supervisor:
        return Supervisor(self.platform.settings)


@dataclass(frozen=True)
class Fault:
    """A fault by name. `apply` does it, undoes it after some time, and returns what it did in words.

    With `waits` it is applied from the beginning of a step on: what it hits is there for some seconds of it alone.
    """

    name: str
    apply: Callable[[Installation], str]
    waits: bool = False


def server(name: str, installation: Installation) -> list[psutil.Process]:
    """The process that supervisor started, and of the online server those that answer."""
    process = psutil.Process(installation.supervisor.processes()[name].pid)
    return [process, *process.children(recursive=True)] if name == "online" else [process]


def database(installation: Installation) -> list[psutil.Process]:
    """Postgres, whose first process the others are children of."""
    process = psutil.Process(installation.supervisor.processes()[POSTGRES].pid)
    return [process, *process.children(recursive=True)]


def sessions(installation: Installation) -> list[psutil.Process]:
    """One process of Postgres that works for a client."""
    return [process for process in database(installation) if "[local]" in _command(process)][:1]


def writers(installation: Installation) -> list[psutil.Process]:
    """The process of Postgres that writes its log."""
    return [process for process in database(installation) if "walwriter" in _command(process)]


def answering(installation: Installation) -> list[psutil.Process]:
    """One process of the online server that answers."""
    return [process for process in server("online", installation) if "spawn_main" in _command(process)][:1]


def workers(installation: Installation) -> list[psutil.Process]:
    """The processes that execute runs."""
    files = Workers(installation.platform.settings.run_worker_directory)
    living = [run_id for run_id in files.run_ids() if files.state(run_id) is WorkerState.ALIVE]
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):  # one has just begun or ended
        return [psutil.Process(int((files.directory / f"{run_id}.lock").read_text())) for run_id in living]
    return []


def dbts(installation: Installation) -> list[psutil.Process]:
    """The dbt commands of runs."""
    return [process for process in leftovers.find_processes(installation.platform.settings) if chaos.is_dbt(process)]


def everything(installation: Installation) -> list[psutil.Process]:
    """All processes."""
    return leftovers.find_processes(installation.platform.settings)


TARGETS: dict[str, Callable[[Installation], list[psutil.Process]]] = {
    "the worker of a run": workers,
    "dbt": dbts,
    "Postgres": lambda installation: database(installation)[:1],
    "a session of Postgres": sessions,
    "the log writer of Postgres": writers,
    "a process that answers": answering,
    **{name: lambda installation, name=name: server(name, installation)[:1] for name in SERVERS},  # type: ignore[misc]
    "supervisor": lambda installation: [psutil.Process(installation.supervisor.pid())],
    "everything": everything,
}
KILLS = int(os.environ.get("MLOPS_CHAOS_KILLS") or len(TARGETS))
"""How many processes are killed."""


def elsewhere(program: str) -> list[psutil.Process]:
    """The processes of servers that do not belong to the installation, which the tests started, by the name of their program."""
    return [process for process in psutil.Process().children(recursive=True) if _name(process) == program]


SERVERS_ELSEWHERE: dict[str, Callable[[Installation], list[psutil.Process]]] = {
    "Postgres there": lambda _: elsewhere("postgres"),
    "the object store": lambda _: elsewhere("weed"),
    "a node of NATS": lambda _: elsewhere("nats-server")[:1],
    "all nodes of NATS": lambda _: elsewhere("nats-server"),
    "a node of Redis": lambda _: elsewhere("redis-server")[:1],
}
"""The servers of an installation whose state is elsewhere."""

A_SESSION = "a session of Postgres there"
_ALL_TARGETS = {
    **TARGETS,
    **SERVERS_ELSEWHERE,
    A_SESSION: lambda _: [process for process in elsewhere("postgres") if "127.0.0.1(" in _command(process)][:1],
}

_UP_AGAIN = ("supervisor", "everything")
"""After these a person calls `mlops up`."""


def kill(name: str, installation: Installation) -> str:
    """SIGKILL to a target, as soon as there is one."""
    if name == "everything":
        count, _ = chaos.kill_everything(installation.platform)
    else:
        count = _send(_appearing(name, installation), signal.SIGKILL)
    if name not in _UP_AGAIN:
        return "killed"
    began = time.monotonic()
    installation.up()
    return f"{count} killed, `mlops up` took {time.monotonic() - began:.0f} s"


def stop(name: str, seconds: float, installation: Installation) -> str:
    """SIGSTOP to a target, and SIGCONT after a time."""
    processes = everything(installation) if name == "everything" else _appearing(name, installation)
    if name == "Postgres":
        processes = database(installation)
    _send(processes, signal.SIGSTOP)
    time.sleep(seconds)
    _send(processes, signal.SIGCONT)
    return f"{len(processes)} stopped for {seconds:.0f} s"


def away(name: str, installation: Installation) -> str:
    """A server that nobody can connect to for a time."""
    installation.supervisor.stop(name)
    time.sleep(AWAY_SECONDS)
    installation.supervisor.start(name)
    return f"away for {AWAY_SECONDS:.0f} s"


def fill_disk(installation: Installation) -> str:
    """Not one free byte for a time."""
    with installation.machine.full():
        time.sleep(FULL_SECONDS)
        ended = [process.name for process in installation.supervisor.processes().values() if process.state != "RUNNING"]
    return f"full for {FULL_SECONDS:.0f} s, then not running: {', '.join(sorted(ended)) or 'none'}"


def hang_disk(installation: Installation) -> str:
    """No write ends for a time."""
    with installation.machine.hung():
        time.sleep(STOPPED_SECONDS)
    return f"hung for {STOPPED_SECONDS:.0f} s"


def slow_disk(installation: Installation) -> str:
    """Writes end in three hundredths of a second three times a second."""
    installation.machine.be_slow(SLOW_SECONDS)
    return f"slow for {SLOW_SECONDS:.0f} s"


def jump(seconds: int, installation: Installation) -> str:
    """Another time for a minute, and the right one again."""
    installation.machine.shift_clock(seconds)
    time.sleep(AWAY_SECONDS)
    installation.machine.shift_clock(0)
    return f"off by {seconds / 60:+.0f} min for {AWAY_SECONDS:.0f} s"


def faults(kills: int = KILLS) -> Iterator[Fault]:
    """The faults of an installation on one machine: so many kills, of one target after the other, then each of the others."""
    names = list(TARGETS)
    for number in range(kills):
        name, turn = names[number % len(names)], number // len(names)
        yield Fault(f"kill -9: {name}" + (f" ({turn + 1})" if turn else ""), partial(kill, name), waits=name == "dbt")
    for name in ("the worker of a run", "Postgres", "a process that answers", *(each for each in SERVERS if each != "mlflow")):
        yield Fault(f"stopped: {name}", partial(stop, name, STOPPED_SECONDS))
    yield Fault("stopped: everything", partial(stop, "everything", STOPPED_SECONDS))
    for name in (POSTGRES, NATS):
        yield Fault(f"away: {name}", partial(away, name))
    yield Fault("disk: hangs", hang_disk)
    yield Fault("disk: slow", slow_disk)
    yield Fault("disk: full", fill_disk)
    yield Fault("clock: ahead and back", partial(jump, JUMP_SECONDS))
    yield Fault("clock: behind and back", partial(jump, -JUMP_SECONDS))


def faults_with_state_elsewhere() -> Iterator[Fault]:
    """The faults of an installation whose state is elsewhere: of what is left on its machine, and of the servers there."""
    for name in ("the worker of a run", "a process that answers", "everything", A_SESSION):
        yield Fault(f"state elsewhere, kill -9: {name}", partial(kill, name))
    for name in SERVERS_ELSEWHERE:
        yield Fault(f"state elsewhere, stopped: {name}", partial(stop, name, STOPPED_SECONDS))


def _appearing(name: str, installation: Installation) -> list[psutil.Process]:
    wait_for(lambda: bool(_ALL_TARGETS[name](installation)))
    return _ALL_TARGETS[name](installation)


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> int:
    count = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            count += 1
    return count


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.name()
    return ""
