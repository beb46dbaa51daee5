"""Maintenance from the command line, on a running stack."""

import json

from running_stack import Platform

from mlops_assets.lake.tables import fingerprint

TABLE = "upkeep.numbers"


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
    assert all(planned[part]["before"] == planned[part]["after"] for part in ("lake", "runs"))
    assert f"Tables to merge: {', '.join(planned['lake']['compacted'])}" in platform.mlops(
        "maintenance", "--dry-run"
    ).stdout.replace("\n", " ")
    done = platform.mlops("maintenance", "--json")
    assert done.returncode == 0, done.stderr
    assert platform.client.run(json.loads(done.stdout)["run_id"]).status == "SUCCESS"
    [recorded] = platform.client.materializations("platform/lake_maintenance", 1)
    assert recorded.metadata["expired_numbers"] == []  # what `mlops trace` reads
    with platform.lake.connect(read_only=False) as connection:
        assert fingerprint(connection, f"lake.{TABLE}") == before
        live = connection.execute("SELECT count(*) FROM ducklake_list_files('lake', 'numbers', schema => 'upkeep')").fetchall()
        assert live == [(1,)]
        connection.execute("DROP TABLE upkeep.numbers; DROP SCHEMA upkeep")
