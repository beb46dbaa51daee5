"""How keys and values become bytes, and that the store needs nothing heavy."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.core.settings import Settings
from mlops_assets.online_store.lmdb_store import LmdbStore
from mlops_assets.online_store.store import open_online_store
from mlops_assets.online_store.values import (
    Column,
    EntityValues,
    OnlineStoreError,
    OnlineView,
    ViewState,
    build_columns,
    decode_values,
    encode_key,
    encode_values,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
WHOLE = st.integers(-(2**63), 2**63 - 1)
PARTS: dict[str, Any] = {"string": TEXT, "integer": WHOLE, "boolean": st.booleans()}
VALUES = st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False) | TEXT


@st.composite
def keys(draw: st.DrawFn) -> tuple[tuple[str, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Kinds of a key, and two keys of these kinds."""
    kinds = tuple(draw(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3)))
    one, other = (tuple(draw(PARTS[kind]) for kind in kinds) for _ in range(2))
    return kinds, one, other


@given(keys())
def test_different_keys_have_different_bytes_that_fit(drawn: tuple[tuple[str, ...], tuple[Any, ...], tuple[Any, ...]]) -> None:
    kinds, one, other = drawn
    first, second = encode_key(kinds, one), encode_key(kinds, other)
    assert first is not None
    assert (first == second) == (one == other)
    assert len(first) <= 256


@given(st.one_of(VALUES, st.binary(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())))
def test_any_part_is_a_key_or_refused(part: Any) -> None:
    for kind, accepted in (("string", str), ("integer", int), ("boolean", bool)):
        assert (encode_key([kind], [part]) is not None) == (type(part) is accepted)


def test_numpy_integers_and_strings_are_keys_like_any_other() -> None:
    assert encode_key(["integer", "string"], [np.int64(4), np.str_("x")]) == encode_key(["integer", "string"], [4, "x"])


@given(st.lists(VALUES), st.integers(-(2**62), 2**62))
def test_values_come_back_as_they_were(values: list[Any], moment: int) -> None:
    decoded = decode_values(encode_values(EntityValues(("x",), moment, tuple(values))))
    assert [(type(value), repr(value)) for value in decoded] == [(type(value), repr(value)) for value in [moment, *values]]


def test_a_state_comes_back_as_it_was() -> None:
    view = OnlineView(
        name="v",
        version=3,
        entity=(Column("k", "string"),),
        features=(Column("a", "float"), Column("b", "boolean")),
        timed=True,
        freshness_days=None,
    )
    state = ViewState(view=view, source="features.v 1", snapshot=7, entities=2, newest=5)
    assert ViewState.from_bytes(state.to_bytes()) == state
    assert state.after(snapshot=8, entities=3, newest=4).newest == 5
    assert state.after(snapshot=8, entities=3, newest=6).newest == 6


@pytest.mark.parametrize("data_type", ["DECIMAL(9,2)", "DATE", "TIMESTAMP WITH TIME ZONE", "HUGEINT", "VARCHAR[]", "BLOB"])
def test_types_that_change_on_the_way_are_refused(data_type: str) -> None:
    with pytest.raises(OnlineStoreError, match=r"Column f of feature view v .* set meta\.feature_view\.online to false"):
        build_columns(["f"], {"f": data_type}, view="v", as_key=False)


def test_a_floating_point_key_is_refused() -> None:
    assert build_columns(["f"], {"f": "DOUBLE"}, view="v", as_key=False) == (Column("f", "float"),)
    with pytest.raises(OnlineStoreError, match="cast it to one of VARCHAR, BOOLEAN, TINYINT"):
        build_columns(["f"], {"f": "DOUBLE"}, view="v", as_key=True)


def test_without_a_redis_the_store_is_a_file_in_the_state_folder(tmp_path: Path) -> None:
    store = open_online_store(Settings(home=tmp_path))
    assert isinstance(store, LmdbStore)
    assert store.state("v", 1) is None
    assert (tmp_path / "online_store" / "data.mdb").is_file()


def test_a_serving_process_needs_no_heavy_library() -> None:
    script = (
        "import sys; from mlops_assets.online_store import lmdb_store, redis_store, store\n"
        "print([name for name in ('dagster', 'duckdb', 'pandas', 'pyarrow', 'numpy', 'mlflow', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
