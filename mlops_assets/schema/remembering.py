"""A memory for the time of one load: what every solution looks up is looked up once, and anew at the next load."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_memory: ContextVar[dict[Any, Any] | None] = ContextVar("_memory", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """Inside the block each function that is `remembered` computes a result once for the same arguments."""
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def remembered(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Let `function`, whose positional arguments are hashable, keep its results inside `remembering`. Errors are not kept."""

    @functools.wraps(function)
    def look_up(*arguments: _Parameters.args, **keywords: _Parameters.kwargs) -> _Result:
        memory = _memory.get()
        if memory is None:
            return function(*arguments, **keywords)
        key = (function, arguments, tuple(keywords.items()))
        if key not in memory:
            memory[key] = function(*arguments, **keywords)
        return memory[key]

    return look_up
