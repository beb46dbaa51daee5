"""The program supervisord, each line of whose log files begins with the environment: its own log, and those of all servers.

`python -m mlops_assets.local.supervisord` takes the options of `supervisord`. A server that cannot write the name, such as NATS, or that
dies before it does, is named too.
"""

from typing import Any

from supervisor import loggers, supervisord

from mlops_assets.core.environment_files import environment_prefix


class NamedLogFile(loggers.RotatingFileHandler):
    """A log file of supervisor, whose lines get `prefix` where they do not begin with it."""

    prefix = b""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._begins_line = True
        self._held = b""

    def setFormat(self, fmt: str) -> None:  # noqa: N802 - the name of supervisor
        """Keep the format of a record; what is written is the line that it makes."""
        self._format = fmt
        super().setFormat("%(message)s")

    def emit(self, record: Any) -> None:
        """Write a record: a line of supervisor's own, or a piece of what a server printed."""
        content = record.msg if isinstance(record.msg, bytes) else (self._format % record.asdict()).encode()
        super().emit(loggers.LogRecord(record.level, self.name_lines(content)))

    def name_lines(self, content: bytes) -> bytes:
        """`content`, which goes on where the one before ended, with the prefix. What may become a prefix at its end is held for the next."""
        *lines, rest = (self._held + content).split(b"\n")
        self._held = b""
        named = bytearray()
        for piece in (*(line + b"\n" for line in lines), rest):
            if self._begins_line and not piece.startswith(self.prefix):
                if self.prefix.startswith(piece):
                    self._held = piece
                    break
                named += self.prefix
            named += piece
            self._begins_line = piece.endswith(b"\n")
        return bytes(named)


if __name__ == "__main__":
    NamedLogFile.prefix = environment_prefix().encode()
    if NamedLogFile.prefix:
        loggers.RotatingFileHandler = NamedLogFile
    supervisord.main()
