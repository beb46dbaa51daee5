"""The protocol of an engine, and the choice of the one that the settings name."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol, TypeVar

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import RAY, Settings

Part = TypeVar("Part")
Result = TypeVar("Result")


class EngineError(StackError):
    """The engine cannot do the work as things are configured; the message names the remedy."""


class Engine(Protocol):
    """A place where a function is applied to parts. Safe to use from several threads."""

    @property
    def processors(self) -> int:
        """The parts that can be worked on at the same time."""
        ...

    @property
    def shares_process(self) -> bool:
        """Whether the function runs in this process, so that nothing has to be sent to it."""
        ...

    def other_hosts(self) -> Sequence[str]:
        """The machines, other than this one, on which parts may run."""
        ...

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part], *, in_flight: int) -> Iterator[Result]:
        """Give the results of `function` for `parts`, in their order, each as soon as it and those before are there.

        At most `in_flight` parts are begun and not yet given; with 1, a part begins when its result is asked for. An error of `function`
        is raised as it is. A part whose worker died is done again, on another one. Those that nobody waits for any more are cancelled.
        """
        ...


class ProcessEngine:
    """The process that asks, one part after another; several for several of its threads."""

    shares_process = True

    @property
    def processors(self) -> int:
        """The processors of this machine that this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def other_hosts(self) -> Sequence[str]:
        """None."""
        return ()

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part], *, in_flight: int) -> Iterator[Result]:
        """Apply `function` to each part when its result is asked for. See `Engine.map`."""
        return map(function, parts)


@contextmanager
def open_engine(name: str, settings: Settings) -> Iterator[Engine]:
    """The engine `name`, whose processes end with the block. Raises EngineError when it is not installed."""
    if name != RAY:
        yield ProcessEngine()
        return
    if find_spec("ray") is None:
        raise EngineError(
            "Ray is not installed.", remedy="Install mlops-assets[ray], or unset MLOPS_ENGINE and MLOPS_RAY_ADDRESS."
        )
    from mlops_assets.engine.ray_engine import ray_engine

    with ray_engine(settings.ray_address or LOCAL, memory=settings.task_memory) as engine:
        yield engine


LOCAL = "local"
"""The address that means a cluster of this machine's processors, which ends with the engine."""
