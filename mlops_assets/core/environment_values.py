"""Numbers, switches, choices and ports in environment variables, read with an error that names the variable and what is allowed."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

Default = TypeVar("Default", bound=int | None)


def read_count(environment: Mapping[str, str], variable: str, default: Default, *, most: int = 64) -> int | Default:
    """The number from 1 to `most` that `variable` holds, or `default`. Raises ValueError for any other text."""
    text = environment.get(variable)
    if not text:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise ValueError(f"{variable}={text!r} is no count: set it to a number from 1 to {most}, or unset it.")
    return int(text)


def read_switch(environment: Mapping[str, str], variable: str, default: bool) -> bool:
    """Whether `variable` is `on`, or `default`. Raises ValueError for a text that is neither `on` nor `off`."""
    text = environment.get(variable)
    if not text:
        return default
    if text not in {"on", "off"}:
        raise ValueError(f"{variable}={text!r} is neither on nor off: set it to one of them, or unset it.")
    return text == "on"


def read_choice(environment: Mapping[str, str], variable: str, default: str, choices: Sequence[str]) -> str:
    """The one of `choices` that `variable` names, or `default`. Raises ValueError for any other text."""
    text = environment.get(variable) or default
    if text not in choices:
        raise ValueError(f"{variable}={text!r} is not {' or '.join(choices)}: set it to one of them, or unset it.")
    return text


def read_port(environment: Mapping[str, str], variable: str, default: int) -> int:
    """The port that `variable` holds, or `default`. Raises ValueError for what is none."""
    text = environment.get(variable) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{variable}={text!r} is not a port: set it to a number from 1 to 65535, or unset it for {default}.")
    return int(text)
