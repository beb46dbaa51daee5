"""Channels that deliver notifications: Apprise for every address that is a URL, and those of a team, which `MLOPS_NOTIFY_URLS` names."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mlops_assets.schema.registry import Registry

if TYPE_CHECKING:
    from mlops_assets.clients.notifier import Notification

_NAME = re.compile(r"\w+|[\w.]+:\w+")


class DeliveryError(Exception):
    """A notification was not taken. The message quotes no address, since addresses hold secrets."""


@runtime_checkable
class Channel(Protocol):
    """A way to people."""

    def deliver(self, notification: "Notification", addresses: Sequence[str], *, seconds: float) -> None:
        """Deliver to `addresses` (a channel of a team has none) within `seconds`. Raises what goes wrong."""
        ...


class AppriseChannel:
    """The channel of addresses that are URLs: mail, chats, webhooks and some hundred more."""

    def deliver(self, notification: "Notification", addresses: Sequence[str], *, seconds: float) -> None:
        """Deliver to every address that Apprise knows. Raises DeliveryError when it does not know one, or one does not take it."""
        import apprise

        sender = apprise.Apprise()
        refused = [position for position, url in enumerate(addresses, start=1) if not sender.add(url)]
        kind = apprise.NotifyType(notification.severity)
        if sender and not sender.notify(notification.text, notification.title, kind, timeout=seconds):
            raise DeliveryError("an address did not take it; see the log of the code location")
        if refused:
            raise DeliveryError(f"MLOPS_NOTIFY_URLS: Apprise does not know the address number {refused[0]}")


apprise = AppriseChannel()

CHANNELS = Registry("notification channel", group="mlops_assets.notifications", builtin=__name__, protocol=Channel)  # type: ignore[type-abstract]


def split_addresses(addresses: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The names of channels with their addresses: Apprise with all URLs, and each channel of a team."""
    named = [address for address in addresses if _NAME.fullmatch(address)]
    urls = [address for address in addresses if address not in named]
    return [*([("apprise", urls)] if urls else []), *((name, []) for name in named)]
