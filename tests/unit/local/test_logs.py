from pathlib import Path

from mlops_assets.local import logs
from mlops_assets.local.services import Service


def test_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert logs.last_lines(log, 2) == ["line 19998", "line 19999"]
    assert logs.last_lines(tmp_path / "absent", 2) == []


def test_follow_yields_complete_new_lines_and_survives_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    service = Service(name="mlflow", log=log, port=None, port_variable=None, url=None)
    # What happens to the file before each look.
    steps = iter(
        [
            lambda: log.open("a").write("one\ntwo\nhal"),
            lambda: log.open("a").write("f\n"),
            lambda: log.write_text("new\n"),
        ]
    )

    def keep_on() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    assert list(logs.follow([service], 0.0, keep_on)) == [("mlflow", line) for line in ("one", "two", "half", "new")]
