"""Maintenance from the command line, on a running stack."""

import json

import pytest
from running_stack import Platform

from mlops_assets.lake.tables import fingerprint

pytestmark = pytest.mark.long

TABLE = "upkeep.numbers"


def _files(platform: Platform) -> int:
    with platform.lake.connect(read_only=True) as connection:
        [(files,)] = connection.execute(
            "SELECT count(*) FROM ducklake_list_files('lake', 'numbers', schema => 'upkeep')"
        ).fetchall()
    return int(files)


def test_maintenance_runs_as_an_asset_and_its_dry_run_does_nothing(platform: Platform) -> None:
    with platform.lake.connect(read_only=False) as connection:
        for number in range(12):
            platform.lake.append(
                connection,
                table=TABLE,
                query=f"SELECT {number} * 100 + i AS id FROM range(100) r(i)",
                identifier="id",
                author="test",
            )
        before = fingerprint(connection, f"lake.{TABLE}")
    planned = json.loads(platform.mlops("maintenance", "--dry-run", "--json").stdout)
    assert TABLE in planned["lake"]["compacted"]
    assert f"Tables to merge: {', '.join(planned['lake']['compacted'])}" in platform.mlops(
        "maintenance", "--dry-run"
    ).stdout.replace("\n", " ")
    assert _files(platform) == 12
    done = platform.mlops("maintenance", "--json")
    assert done.returncode == 0, done.stderr
    assert platform.client.run(json.loads(done.stdout)["run_id"]).status == "SUCCESS"
    [recorded] = platform.client.materializations("platform/lake_maintenance", 1)
    assert recorded.metadata["expired_numbers"] == []  # what `mlops trace` reads
    assert _files(platform) == 1
    with platform.lake.connect(read_only=False) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == before
        connection.execute("DROP TABLE upkeep.numbers; DROP SCHEMA upkeep")
