"""The servers' logs: the last lines for an error message, and all lines as they come for a person."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mlops_assets.local.services import Service

_TAIL_BYTES = 64_000


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of a log, fewer when it is shorter, none when it does not exist yet."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-count:]


def follow(services: Sequence[Service], poll_seconds: float, keep_on: Callable[[], bool]) -> Iterator[tuple[str, str]]:
    """Yield (service name, line) for every line written from now on, until `keep_on` says no.

    A log that supervisor has rotated (it is shorter than what was read) is read from its start again.
    """
    positions = {service.name: service.log.stat().st_size if service.log.exists() else 0 for service in services}
    while keep_on():
        for service in services:
            size = service.log.stat().st_size if service.log.exists() else 0
            if size < positions[service.name]:
                positions[service.name] = 0
            if size == positions[service.name]:
                continue
            with service.log.open("rb") as file:
                file.seek(positions[service.name])
                # Up to the last complete line: the rest comes with the next look.
                complete, separator, _ = file.read().rpartition(b"\n")
            positions[service.name] += len(complete) + len(separator)
            for line in complete.decode(errors="replace").splitlines():
                yield service.name, line
        time.sleep(poll_seconds)
