"""The latency of a loaded bundle for one row: scoring alone, without fetching features and without a network."""

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mlops_assets.serving.bundle import Bundle

_WARM_UP = 20


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a single prediction, half (`p50`) and 99 of 100 (`p99`) of `rows` being at most that."""

    p50: float
    p99: float
    rows: int


def measure_latency(bundle: Bundle, table: pa.Table, *, rows: int) -> Latency:
    """Score `rows` rows of `table` (which has at least one) one at a time, again from its first when they run out."""
    whole = table.combine_chunks()
    singles = [whole.slice(position % table.num_rows, 1) for position in range(_WARM_UP + rows)]
    seconds = np.empty(len(singles))
    for position, single in enumerate(singles):
        began = time.perf_counter()
        bundle.score(single)
        seconds[position] = time.perf_counter() - began
    p50, p99 = np.quantile(seconds[_WARM_UP:] * 1000, [0.5, 0.99])
    return Latency(p50=float(p50), p99=float(p99), rows=rows)
