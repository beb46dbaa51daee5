"""Admission of callers: who gives a token, and what changes without a restart."""

from datetime import timedelta
from pathlib import Path

import pytest

from mlops_assets.access.admission import Admission
from mlops_assets.access.callers import add_caller, add_person, rotate_token
from mlops_assets.core.settings import Settings


def name(admission: Admission, token: str, scheme: str = "Bearer") -> str | None:
    admission.refresh()
    admitted = admission.find(f"{scheme} {token}".encode())
    return admitted and admitted.caller.name


def test_a_token_is_known_by_its_hash_and_followed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    admission = Admission(settings)
    assert name(admission, "") is None
    shop = add_caller(settings, "shop", ("flights",), requests_per_second=None, burst=1)
    assert (name(admission, shop), name(admission, shop, "bearer"), name(admission, shop, "Basic")) == ("shop", "shop", None)
    new, _ = rotate_token(settings, "shop", timedelta())
    assert (name(admission, shop), name(admission, new)) == (None, "shop")
    assert admission.find(None) is None


def test_a_person_asks_for_no_predictions(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert name(Admission(settings), add_person(settings, "anna", "operator")) is None


def test_a_limit_goes_on_when_the_file_is_read_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    token = add_caller(settings, "shop", ("flights",), requests_per_second=0.1, burst=1)
    waits = []
    for other in ("a", "b"):
        admission = Admission(settings)
        admission.refresh()
        admitted = admission.find(f"Bearer {token}".encode())
        assert admitted is not None
        assert admitted.limit is not None
        waits.append(admitted.limit.take())
        add_caller(settings, other, ("flights",), requests_per_second=None, burst=1)
    assert waits == [0, pytest.approx(10, abs=1)]
