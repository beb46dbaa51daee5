from dataclasses import replace
from pathlib import Path

from mlops_assets.core.settings import Settings


def test_a_password_is_in_a_file_of_the_owner_alone(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", postgres_url="postgresql://me:p%40ss%3Aw'ord%5C@db.example/main")
    settings.postgres_connection_string("lake")
    assert settings.postgres_password_file.read_text() == "*:*:*:*:p@ss\\:w'ord\\\\\n"
    assert settings.postgres_password_file.stat().st_mode & 0o777 == 0o600
    replace(settings, postgres_url="postgresql://me:new@db.example/main").sqlalchemy_url("lake")
    assert settings.postgres_password_file.read_text() == "*:*:*:*:new\n"
