"""Dumps of a Postgres on another machine, which wants TLS: Debian's, since that of the wheel knows none."""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2
import pytest
from elsewhere import postgres_with_tls

from mlops_assets.core.settings import LAKE_DATABASE, Settings
from mlops_assets.local.postgres import create_databases, query_value
from mlops_assets.operations.backup import databases


@pytest.mark.long
def test_the_databases_of_a_server_with_tls_are_dumped_and_filled_again(tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="pg.", dir="/tmp") as folder, postgres_with_tls(Path(folder)) as address:
        settings = Settings(home=tmp_path / "home", postgres_url=address)
        settings.home.mkdir()
        (tmp_path / "dumps").mkdir()
        create_databases(settings)
        with closing(psycopg2.connect(settings.postgres_connection_string(LAKE_DATABASE))) as connection:
            connection.autocommit = True
            connection.cursor().execute("CREATE TABLE kept AS SELECT 7 AS number")
            with databases.one_moment(settings) as moment:
                databases.dump(settings, moment, tmp_path / "dumps")
            assert databases.filled_databases(settings) == [LAKE_DATABASE]
            connection.cursor().execute("DROP TABLE kept")
        databases.restore(settings, tmp_path / "dumps")
        assert query_value(settings, LAKE_DATABASE, "SELECT number FROM kept") == 7
