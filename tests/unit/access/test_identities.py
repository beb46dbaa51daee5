"""Persons at a door: their tokens, their sessions, and a file of them that cannot be read."""

from datetime import timedelta
from pathlib import Path

from mlops_assets.access.callers import add_person, rotate_token
from mlops_assets.access.credentials import access_token, renew_access_token
from mlops_assets.access.identities import Identity, identities
from mlops_assets.core.settings import Settings

OWNER = Identity("owner", "operator", has_session=False)


def test_a_session_is_of_one_service_and_of_one_token(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    token = add_person(settings, "anna", "viewer").encode()
    dagster, mlflow = identities(settings, "Dagster", None), identities(settings, "MLflow", None)
    session = dagster.session(token).encode()
    assert dagster.of_session(session) == Identity("anna", "viewer", has_session=True)
    assert mlflow.of_session(session) is None
    assert dagster.of_session(session[:-1] + b"x") is None
    # What the file holds opens nothing.
    digest = settings.callers_file.read_text().partition('"sha256": "')[2][:64].encode()
    assert len(digest) == 64
    assert (dagster.of_token(digest), dagster.of_session(digest)) == (None, None)
    rotate_token(settings, "anna", timedelta())
    assert (dagster.of_session(session), dagster.of_token(token)) == (None, None)


def test_a_new_token_of_the_owner_ends_all_sessions(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    anna = add_person(settings, "anna", "operator").encode()
    door = identities(settings, "Dagster", None)
    sessions = [door.session(token).encode() for token in (anna, access_token(settings).encode())]
    assert [door.of_session(session) is not None for session in sessions] == [True, True]
    renew_access_token(settings)
    assert [door.of_session(session) for session in sessions] == [None, None]


def test_a_file_that_cannot_be_read_lets_in_the_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    anna = add_person(settings, "anna", "operator").encode()
    settings.callers_file.write_text("{")
    door = identities(settings, "Dagster", None)
    assert (door.of_token(anna), door.of_token(b"\xff")) == (None, None)
    assert door.of_token(access_token(settings).encode()) == OWNER
