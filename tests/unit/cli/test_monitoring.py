"""`mlops debug`: the rows behind an alert, as they are."""

from rich.console import Console

from mlops_assets.cli.monitoring import _table


def test_rows_are_shown_as_they_are(terminal: Console) -> None:
    rows = [{"prediction_id": "x:[a]:1", "[km]": 1234.5678, "gone": None}, {"prediction_id": "x:2:1", "[km]": 7, "gone": "[/b]"}]
    terminal.print(_table(rows, subject="[km]"))
    header, first, second = (line.split() for line in terminal.export_text().splitlines())
    assert header == ["prediction_id", "[km]", "gone"]
    assert first == ["x:[a]:1", "1235", "missing"]
    assert second == ["x:2:1", "7", "[/b]"]
