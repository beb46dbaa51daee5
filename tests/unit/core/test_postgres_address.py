from dataclasses import replace
from pathlib import Path

import psycopg2.extensions
import pytest
from sqlalchemy.engine import make_url

from mlops_assets.core.listening import Listening
from mlops_assets.core.settings import Settings


def test_a_password_is_in_a_file_of_the_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", postgres_url="postgresql://me:p%40ss%3Aw'ord%5C@db.example/main")
    settings.postgres_connection_string("lake")
    assert settings.postgres_password_file.read_text() == "*:*:*:*:p@ss\\:w'ord\\\\\n"
    assert settings.postgres_password_file.stat().st_mode & 0o777 == 0o600
    replace(settings, postgres_url="postgresql://me:new@db.example/main").sqlalchemy_url("lake")
    assert settings.postgres_password_file.read_text() == "*:*:*:*:new\n"


@pytest.mark.parametrize(
    ("url", "is_verified"),
    [
        ("postgresql://me@db.example/main", True),
        ("postgresql://me@10.0.0.7/main", True),
        ("postgresql://me@/main?host=db.example", True),
        ("postgresql://me@db.example/main?sslmode=disable", False),
        ("postgresql://me@127.0.0.1/main", False),
        ("postgresql://me@localhost/main", False),
        ("postgresql://me@/main?host=/run/postgres", False),
        ("postgresql://me@%2Frun%2Fpostgres/main", False),
    ],
)
def test_a_server_on_another_machine_is_verified_where_authorities_are_named(url: str, is_verified: bool) -> None:
    settings = Settings(home=Path("/srv"), postgres_url=url, listening=Listening(authorities=Path("/etc/tls/ca.pem")))
    for options in (
        psycopg2.extensions.parse_dsn(settings.postgres_connection_string("lake")),
        make_url(settings.sqlalchemy_url("lake")).query,
    ):
        verified = {"sslmode": "verify-full", "sslrootcert": "/etc/tls/ca.pem"}
        assert (verified.items() <= options.items()) == is_verified
