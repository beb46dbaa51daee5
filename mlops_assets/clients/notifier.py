"""The notifier: a line per notification in a local file, and delivery to the addresses of the installation.

How it is delivered is in `channels.py`. Which events are worth telling is decided in
`monitoring/notifications.py`.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mlops_assets.clients.channels import CHANNELS, DeliveryError, split_addresses
from mlops_assets.core.environment_files import environment_name, environment_prefix
from mlops_assets.core.line_files import lines_of, locked, write_line
from mlops_assets.core.settings import Settings

Severity = Literal["info", "success", "warning", "failure"]

DELIVERY_SECONDS = 10.0
"""The longest time that the delivery of one notification may take, to all addresses together."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Notification:
    """An event in words, with the addresses of pages about it.

    `identity` names the occurrence: what has the same one is told once.
    """

    event: str
    severity: Severity
    title: str
    body: str
    identity: str
    links: Mapping[str, str]

    @property
    def text(self) -> str:
        """The body with the links below it."""
        return "\n".join([self.body, *(f"{name}: {url}" for name, url in self.links.items())])


@dataclass(frozen=True)
class Notifier:
    """Keeps notifications in the file `log`, one JSON object a line, and delivers them to `urls` (none: the file is all)."""

    log: Path
    urls: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> "Notifier":
        """The notifier of this installation."""
        return cls(log=settings.notification_log, urls=settings.notify_urls)

    def notify(self, notifications: Sequence[Notification], *, seconds: float) -> int:
        """Tell what was not told before, oldest first, until `seconds` have passed; returns how many of `notifications` are dealt with.

        A delivery that fails or takes too long is logged and recorded with the line, and not tried again: nothing that happens at the
        far end keeps the platform from its work. One process at a time tells.
        """
        if not notifications:
            return 0
        deadline = time.monotonic() + seconds
        name = environment_name()
        prefix = environment_prefix()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.log) as file:
            logged = self._identities(lines_of(file))
            for number, notification in enumerate(notifications):
                if time.monotonic() > deadline:
                    return number
                if notification.identity in logged:
                    continue
                logged.add(notification.identity)
                problem = self._deliver(replace(notification, title=f"{prefix}{notification.title}"))
                line = {"at": datetime.now(UTC).isoformat(), "environment": name, **asdict(notification), "problem": problem}
                write_line(file, json.dumps(line, ensure_ascii=False).encode(errors="backslashreplace"))
        return len(notifications)

    def _deliver(self, notification: Notification) -> str | None:
        """Send to every address; returns what went wrong, without the addresses, which hold secrets."""
        if not self.urls:
            return None
        problems = []
        for name, addresses in split_addresses(self.urls):
            try:
                CHANNELS.get(name).deliver(notification, addresses, seconds=DELIVERY_SECONDS)
            except DeliveryError as error:
                problems.append(str(error))
            except Exception as error:  # channels share no class of errors; the line in the file names it, the log has it whole
                problems.append(f"{type(error).__name__} while sending")
                _LOGGER.exception("A notification was not delivered: %s", notification.title)
        problem = "; ".join(problems) or None
        if problem:
            _LOGGER.error("Not delivered: %s (%s)", notification.title, problem)
        return problem

    def _identities(self, lines: Sequence[bytes]) -> set[str]:
        """The occurrences that were told. One whose line is not whole, after a power failure, may be told again."""
        identities = set()
        for number, line in enumerate(lines, start=1):
            try:
                identities.add(str(json.loads(line)["identity"]))
            except (ValueError, KeyError, TypeError):
                if line.strip():
                    _LOGGER.warning("Line %d of %s is not whole.", number, self.log)
        return identities
