"""A real Ray cluster of several raylets on this machine. No tests here."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

GB = 2**30
_OBJECT_STORE_BYTES = 100_000_000


@dataclass
class RayCluster:
    """A head, which runs no tasks, and so many `workers`: nodes of one processor and `memory` bytes each."""

    cluster: Any
    workers: int
    memory: int
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        """The address for `MLOPS_RAY_ADDRESS`."""
        return str(self.cluster.address)

    def add_node(self) -> None:
        """Start a raylet."""
        self.nodes.append(self.cluster.add_node(num_cpus=1, memory=self.memory, object_store_memory=_OBJECT_STORE_BYTES))

    def kill_raylet(self, node_id: str | None = None) -> None:
        """Kill the raylet of a node, or of any, with signal 9. Its workers end when they see that it is gone: it must not stay a zombie."""
        node = next(node for node in self.nodes if node_id in (None, node.node_id))
        raylet = node.all_processes["raylet"][0].process
        os.kill(raylet.pid, signal.SIGKILL)
        raylet.wait()
        self.nodes.remove(node)

    def restore(self) -> None:
        """Start raylets in place of those that were killed. In the main thread: Ray handles signals."""
        while len(self.nodes) < self.workers:
            self.add_node()


@contextmanager
def running_ray_cluster(workers: int = 3, memory: int = GB) -> Iterator[RayCluster]:
    """The cluster, which ends with the block."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": _OBJECT_STORE_BYTES, "include_dashboard": False}
    running = RayCluster(Cluster(initialize_head=True, head_node_args=head), workers, memory)
    try:
        running.restore()
        running.cluster.wait_for_nodes()
        yield running
    finally:
        running.cluster.shutdown()


def ray_processes(session: str) -> list[str]:
    """The command lines of processes of the Ray session with `session` in its name."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if session in line and "session_" in line]
