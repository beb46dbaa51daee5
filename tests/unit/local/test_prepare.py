import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgpack
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


def test_what_dbt_parsed_names_the_time_that_an_image_is_built_for(tmp_path: Path) -> None:
    def parsed(clock: float) -> dict[str, object]:
        text = datetime.fromtimestamp(clock, UTC).isoformat()
        return {
            "metadata": {"generated_at": text, "invocation_id": str(uuid4()), "project_name": "shop"},
            "nodes": {"model.shop.a": {"created_at": clock, "columns": {"created_at": {"name": "created_at"}}}},
            "files": {"shop://a.sql": {"modification_time": clock}},
            # What the team wrote: a date of its own, and rows of a unit test.
            "unit_tests": {"a": {"config": {"meta": {"generated_at": "ours"}}, "given": [{"rows": [{"created_at": 15.5}]}]}},
        }

    written = []
    for clock in (1_796_001_270.25, 1_796_009_999.5):
        (tmp_path / "manifest.json").write_text(json.dumps(parsed(clock)))
        (tmp_path / "partial_parse.msgpack").write_bytes(msgpack.packb(parsed(clock)))
        (tmp_path / "perf_info.json").write_text(f'{{"load_all_elapsed": {clock}}}')
        prepare.fix_times(tmp_path, 1_700_000_000)
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == ["manifest.json", "partial_parse.msgpack"]
    content = json.loads(written[0]["manifest.json"])
    assert msgpack.unpackb(written[0]["partial_parse.msgpack"]) == content
    assert content["metadata"]["generated_at"] == "2023-11-14T22:13:20+00:00"
    assert content["nodes"]["model.shop.a"] == {"created_at": 1_700_000_000.0, "columns": {"created_at": {"name": "created_at"}}}
    assert content["unit_tests"] == parsed(0.0)["unit_tests"]
