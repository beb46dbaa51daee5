"""Parts on a Ray cluster: each is a task of one processor and a bounded memory, done again when its worker is lost."""

import logging
import os
import resource
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mlops_assets.engine.engine import LOCAL, EngineError, Part, Result

_RETRIES = 3


@contextmanager
def ray_engine(address: str, *, memory: int) -> Iterator["RayEngine"]:
    """The cluster at `address`, to which the first part connects. A task has `memory` bytes.

    The nodes need the packages of this process. At the end of the block, and of this process, its tasks end; so does a cluster that was
    started for it.
    """
    engine = RayEngine(address, memory)
    try:
        yield engine
    finally:
        engine.close()


@dataclass
class RayEngine:
    """A cluster as an `Engine`."""

    address: str
    memory: int
    shares_process = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ray: Any = None
    _sent: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def processors(self) -> int:
        """The processors of the cluster."""
        return max(1, int(self._connected().cluster_resources().get("CPU", 0)))

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part], *, in_flight: int) -> Iterator[Result]:
        """Apply `function`, which goes to the cluster once, in tasks. See `Engine.map`.

        Raises EngineError when no node can take a task, or a part loses its worker again and again.
        """
        ray = self._connected()
        task = ray.remote(num_cpus=1, memory=self.memory, max_retries=_RETRIES)(_run)
        sent, waiting, running = self._once(function), iter(parts), deque[Any]()
        try:
            while True:
                while len(running) < in_flight:
                    try:
                        running.append(task.remote(sent, next(waiting), self.memory))
                    except StopIteration:
                        break
                if not running:
                    return
                yield ray.get(running.popleft())
        except ray.exceptions.RayTaskError as error:
            # The error of the function itself, as in this process.
            raise error.cause from None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError) as error:
            raise EngineError(
                f"A part lost its worker {_RETRIES + 1} times: {error}",
                remedy="Give a task more memory (MLOPS_TASK_MEMORY_GB), or make parts of tables smaller (MLOPS_PART_VALUES).",
            ) from error
        finally:
            # Not by force: Ray 2.60 ends this process when a task ends of its own at the same moment. What goes on ends with the connection.
            for reference in running:
                ray.cancel(reference)

    def close(self) -> None:
        """End what runs for this engine; without a connection nothing happens."""
        with self._lock:
            if self._ray is not None:
                self._sent.clear()
                self._ray.shutdown()
                self._ray = None

    def other_hosts(self) -> list[str]:
        """The machines of the cluster but this one."""
        here = socket.gethostname()
        return sorted({node["NodeManagerHostname"] for node in self._connected().nodes() if node["Alive"]} - {here})

    def _connected(self) -> Any:
        with self._lock:
            if self._ray is None:
                self._ray = _connect(self.address)
                self._require_room()
            return self._ray

    def _require_room(self) -> None:
        """Raise EngineError when nodes have processors, and none the memory of a task: Ray would wait for one for ever.

        A cluster that grows may have none yet.
        """
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        rooms = [of_node.get("memory", 0) for of_node in resources if of_node.get("CPU", 0) >= 1]
        if rooms and max(rooms) < self.memory:
            self._ray.shutdown()
            self._ray = None
            raise EngineError(
                f"A task may use {self.memory / 2**30:.3g} GB, and no node of the Ray cluster {self.address} has more than "
                f"{max(rooms) / 2**30:.3g} GB for tasks.",
                remedy="Lower MLOPS_TASK_MEMORY_GB, or add a node with more memory.",
            )

    def _once(self, function: Callable[..., Any]) -> Any:
        """The reference of `function` in the cluster, with all that it holds. The function is kept: its identity is the key."""
        with self._lock:
            if id(function) not in self._sent:
                self._sent[id(function)] = (function, self._ray.put(_Function(function)))
            return self._sent[id(function)][1]


@dataclass(frozen=True)
class _Function:
    """A function that is sent by value."""

    call: Callable[[Any], Any]


def _run(function: _Function, part: Any, memory: int) -> Any:
    """Apply the function to `part`, in a worker. More memory than a task's is refused it, so that it cannot take that of others."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    return function.call(part)


def _connect(address: str) -> Any:
    """Connect this process to the cluster at `address`, or start one, and return the library. Raises ConnectionError when none answers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray takes the signal for itself when it is imported, and that of a run is Dagster's.
    former, is_main = signal.getsignal(signal.SIGTERM), threading.current_thread() is threading.main_thread()
    import ray

    # A cluster that is there has a dashboard or none: only with one's own may it be said.
    has_dashboard = False if address == LOCAL else None
    ray.init(address=address, include_dashboard=has_dashboard, log_to_driver=False, logging_level=logging.WARNING)
    if is_main and former is not None:
        signal.signal(signal.SIGTERM, former)
    return ray
