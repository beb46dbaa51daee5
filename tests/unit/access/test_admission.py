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


@pytest.mark.parametrize(
    ("intact", "broken"),
    [
        ('"sha256": "', '"sha256": "z'),
        ("Z", ""),
        ('"name": "shop"', '"name": "../../shop"'),
        ('"tokens"', '"token"'),
        ("[", ""),
    ],
)
def test_a_file_that_was_changed_by_hand_admits_nobody_and_ends_no_server(tmp_path: Path, intact: str, broken: str) -> None:
    settings = Settings(home=tmp_path)
    admission, token = Admission(settings), add_caller(settings, "shop", ("flights",), requests_per_second=1, burst=1)
    assert name(admission, token) == "shop"
    good = settings.callers_file.read_text()
    if intact not in good:
        pytest.fail(f"{intact!r} is not in the file")
    settings.callers_file.write_text(good.replace(intact, broken, 1))
    assert name(admission, token) is None
    settings.callers_file.write_text(good)
    assert name(admission, token) == "shop"


def test_a_file_that_cannot_be_read_admits_nobody_and_ends_no_server(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    admission, token = Admission(settings), add_caller(settings, "shop", ("flights",), requests_per_second=None, burst=1)
    settings.callers_file.unlink()
    settings.callers_file.mkdir()
    assert name(admission, token) is None


def test_a_caller_whose_limit_cannot_be_kept_is_not_admitted_without_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    admission, token = Admission(settings), add_caller(settings, "shop", ("flights",), requests_per_second=1, burst=1)
    other = add_caller(settings, "other", ("flights",), requests_per_second=None, burst=1)
    settings.rate_limits_directory.write_text("in the way of the folder")
    assert (name(admission, token), name(admission, other)) == (None, "other")
