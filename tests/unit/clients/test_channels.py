"""Addresses of notifications: which channel each belongs to, and what an address that is none leads to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.clients.channels import CHANNELS, DeliveryError, split_addresses
from mlops_assets.clients.notifier import Notification

NOTIFICATION = Notification(event="x", severity="info", title="t", body="b", identity="i", links={})
URLS = st.sampled_from(["json://host/a", "mailto://user:pass@host", "slack://a/b/c", "https://host?x=y:z"])
NAMES = st.sampled_from(["pager", "my_team.channels:pager", "channels:pager"])


@settings(max_examples=50)
@given(st.lists(URLS | NAMES, max_size=6))
def test_every_address_goes_to_one_channel_in_its_order(addresses: list[str]) -> None:
    channels = split_addresses(addresses)
    sent = [address for name, group in channels for address in (group or [name])]
    assert sorted(sent) == sorted(addresses)
    assert [name for name, _ in channels].count("apprise") <= 1
    assert [address for address in addresses if "//" in address] == next((group for _, group in channels if group), [])


@pytest.mark.parametrize("addresses", [["nonsense://secret-token"], ["secret-token at home"]])
def test_an_address_that_nobody_knows_is_named_by_its_place_alone(addresses: list[str]) -> None:
    with pytest.raises(DeliveryError, match="does not know the address number 1") as error:
        CHANNELS.get("apprise").deliver(NOTIFICATION, addresses, seconds=1)
    assert "secret" not in str(error.value)


def test_an_address_that_does_not_take_it_is_told_without_its_secret() -> None:
    with pytest.raises(DeliveryError) as error:
        CHANNELS.get("apprise").deliver(NOTIFICATION, ["json://user:secret@127.0.0.1:1/"], seconds=5)
    assert "secret" not in str(error.value)
