"""Files of the state folder that a backup holds."""

import socket
from pathlib import Path

from mlops_assets.operations.backup.state_files import state_files


def names(home: Path, **choice: tuple[str, ...]) -> list[str]:
    return [path.relative_to(home).as_posix() for path in state_files(home, **choice)]


def test_keys_models_and_unknown_files_are_held_and_what_is_made_anew_is_not(tmp_path: Path) -> None:
    kept = [
        "dagster/compute_logs/1.out",
        "later/thing",
        "mlflow/artifacts/.hidden",
        "serving/s/1/model.onnx",
        "signing_key",
        "spool/s/1.spool",
    ]
    left_out = ["dagster/dagster.yaml", "logs/nats.log", "postgres/PG_VERSION", "lake/a.parquet", "serving/s/.lock", "nats.conf"]
    for name in (*kept, *left_out):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "serving" / "s" / "champion").symlink_to("1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "supervisor.sock"))
        assert names(tmp_path) == sorted([*kept, "serving/s/champion"])
    assert names(tmp_path, only=("spool",)) == ["spool/s/1.spool"]
    assert "spool/s/1.spool" not in names(tmp_path, without=("spool",))
