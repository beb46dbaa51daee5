import re
from pathlib import Path

import figures
import pytest


def test_a_figure_takes_the_place_of_its_own_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "FIGURES", [])
    page = tmp_path / "benchmarks.md"
    assert figures.compare("drift", ours=1.0, beside="SQL", theirs=2.0, unit="s", at_most=1.0)
    assert not figures.compare("drift", ours=9.0, beside="NannyML", theirs=3.0, unit="s", at_most=1.0)
    assert figures.record("memory", ours=3.2, unit="GB")
    figures.write_page(page, figures.FIGURES)
    figures.FIGURES.clear()
    assert not figures.compare("drift", ours=1234.5, beside="SQL", theirs=2.0, unit="s", at_least=1000)
    figures.write_page(page, figures.FIGURES)
    rows = re.findall(r"^\| (.*) \| \d{4}-\d\d-\d\d, .* \|$", page.read_text(), re.MULTILINE)
    assert rows == [
        "drift | 1,234 s | SQL: 2 s | 617.25 | >= 1,000x | **no**",
        "drift | 9 s | NannyML: 3 s | 3.00 | <= 1x | **no**",
        "memory | 3.2 GB |  |  |  | ",
    ]
