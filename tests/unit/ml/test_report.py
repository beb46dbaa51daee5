from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from mlops_assets.ml.drift import DriftResult, DriftRow
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.report import headline, render_drift_report

SCHEMA = FeatureSchema(numeric=("age", "empty"), categorical=("color",))
ROWS = (
    DriftRow("w1", "age", "jensen_shannon", 0.05, None, 0.1, 0.05, False),
    DriftRow("w1", "color", "jensen_shannon", 0.04, None, 0.1, 0.04, False),
    DriftRow("w1", "empty", "jensen_shannon", None, None, None, None, False),
    DriftRow("w1", "*", "reconstruction_error", 1.0, 0.9, 1.1, 0.0, False),
    DriftRow("w2", "age", "jensen_shannon", 0.42, None, 0.1, 0.42, True),
    DriftRow("w2", "color", "jensen_shannon", 0.11, None, 0.1, 0.11, False),
    DriftRow("w2", "empty", "jensen_shannon", None, None, None, None, False),
    DriftRow("w2", "*", "reconstruction_error", 1.3, 0.9, 1.1, 0.3, True),
)
RESULT = DriftResult(ROWS, 100, {"w1": 40, "w2": 1234}, ("color",), ("color", "empty"))


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "srcset", "data")]


def _render(window: str = "w2", color: str = "red", links: dict[str, str] | None = None) -> str:
    random = np.random.default_rng(0)

    def table(rows: int) -> pa.Table:
        empty = pa.nulls(rows, pa.float64())
        return pa.table({"age": random.normal(size=rows), "empty": empty, "color": [color, None] * (rows // 2)})

    return render_drift_report(
        title="solution",
        window=window,
        result=RESULT,
        reference=table(100),
        current=table(1234),
        schema=SCHEMA,
        scores=(random.random(100), random.random(1234)),
        links={"run": "http://127.0.0.1:3000/runs/1"} if links is None else links,
    )


def test_the_headline_says_what_changed() -> None:
    assert headline(RESULT.of_window("w1")) == "None of the 3 features drifted."
    text = headline(RESULT.of_window("w2"))
    assert text.startswith("1 of 3 features drifted: age.")
    assert "reconstruction error off by 30%" in text


def test_the_page_needs_nothing_else() -> None:
    page = _Page(_render())
    assert page.addresses == ["http://127.0.0.1:3000/runs/1"]
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "svg" in page.tags


def test_the_worst_feature_comes_first_and_states_are_told_apart() -> None:
    text = _render()
    assert text.index('<tr class="drifted"><th scope="row">age') < text.index('<tr class="small-change"><th scope="row">color')
    assert '<tr class="no-values"><th scope="row">empty' in text
    assert "1,234" in text
    assert "Rare values counted as one: color." in text


def test_values_of_the_data_are_escaped() -> None:
    text = _render(color="<script>alert(1)</script>")
    assert "script" not in _Page(text).tags
    assert "&lt;script&gt;" in text


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="no window 'w9': it has w1, w2"):
        _render(window="w9")
    with pytest.raises(ValueError, match="Not an address to link to: javascript"):
        _render(links={"x": "javascript:alert(1)"})
