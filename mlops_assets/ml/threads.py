"""Threads of fits: as many as their rows are worth, of those that OpenMP has in the thread that asks.

Gradient boosting hands each node of a tree to all threads, which sleep in between: on few rows a fit takes longer with two threads than
with one, and on many two fits side by side take less than one after the other with both (`tests/benchmarks/test_fit_threads.py`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_ROWS_OF_A_THREAD = 25_000
_ROWS_SIDE_BY_SIDE = 10_000
"""Fits on fewer rows are made one after the other: most of one is the interpreter's work, which one thread does at a time."""


@dataclass(frozen=True)
class FitPlan:
    """How many fits are made side by side, and with how many threads of OpenMP each."""

    side_by_side: int
    threads: tuple[int, ...]


def plan_fits(rows: Sequence[int]) -> FitPlan:
    """How to make fits on so many rows each, with the threads that OpenMP has in this thread."""
    available = min((library.num_threads for library in _openmp().lib_controllers), default=1)
    side_by_side = min(len(rows), available) if min(rows, default=0) >= _ROWS_SIDE_BY_SIDE else 1
    return FitPlan(side_by_side, tuple(max(1, min(available // side_by_side, count // _ROWS_OF_A_THREAD)) for count in rows))


@contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Let OpenMP use `threads` in this thread, and afterwards as many as before."""
    with _openmp().limit(limits=threads):
        yield


def _openmp() -> "ThreadpoolController":
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")
