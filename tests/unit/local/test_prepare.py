from pathlib import Path

import pytest

from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local import prepare


def test_extensions_are_installed_once_and_load(tmp_path: Path) -> None:
    import duckdb

    extensions = [*prepare.DUCKDB_EXTENSIONS, *prepare.OPTIONAL_DUCKDB_EXTENSIONS]
    assert prepare.install_duckdb_extensions(tmp_path) == extensions
    assert prepare.install_duckdb_extensions(tmp_path) == []
    with duckdb.connect(config={"extension_directory": str(tmp_path), "autoinstall_known_extensions": "false"}) as connection:
        for name in extensions:
            connection.load_extension(name)


def test_without_a_project_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="There is no dbt project") as raised:
        prepare.parse_dbt_project(Settings(home=tmp_path), tmp_path)
    assert "git checkout" in raised.value.remedy


def test_the_fingerprint_follows_the_sources_and_not_the_output(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: a")
    (tmp_path / "target").mkdir()
    before = prepare.dbt_fingerprint(tmp_path)
    (tmp_path / "target" / "manifest.json").write_text("{}")
    assert prepare.dbt_fingerprint(tmp_path) == before
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.sql").write_text("select 1")
    after = prepare.dbt_fingerprint(tmp_path)
    assert after != before
    (tmp_path / "models" / "a.sql").rename(tmp_path / "models" / "b.sql")
    assert prepare.dbt_fingerprint(tmp_path) not in {before, after}
