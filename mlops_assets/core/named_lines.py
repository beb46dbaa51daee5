"""Output of a process whose lines begin with the name of the environment."""

import io
import sys

from mlops_assets.core.environment_files import environment_prefix


class NamedLines(io.TextIOWrapper):
    """A text stream over that of `stream`, each line of which begins with `prefix`."""

    def __init__(self, stream: io.TextIOWrapper, prefix: str):
        super().__init__(stream.buffer, encoding=stream.encoding, errors=stream.errors, write_through=True)
        self._below = stream  # closes the file when nobody holds it
        self._prefix = prefix
        self._in_line = False

    def write(self, text: str, /) -> int:
        """Write `text`, and the name where a line begins."""
        if not text:
            # click writes no bytes to find out whether it may write any: a stream of text raises TypeError.
            return super().write(text)
        is_whole = text.endswith("\n")
        lines = text.removesuffix("\n").replace("\n", f"\n{self._prefix}")
        super().write(("" if self._in_line else self._prefix) + lines + ("\n" if is_whole else ""))
        self._in_line = not is_whole
        return len(text)


def name_lines() -> None:
    """Let each line that this process prints begin with its environment, unless that is the default one. Before anything logs."""
    prefix = environment_prefix()
    if prefix:
        sys.stdout, sys.stderr = (_named(stream, prefix) for stream in (sys.stdout, sys.stderr))


def unname_lines() -> None:
    """Undo it in a fork whose output a program reads."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def _named(stream: object, prefix: str) -> object:
    return NamedLines(stream, prefix) if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, NamedLines) else stream
