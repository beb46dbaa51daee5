"""The engine that answers online for a version: the process that accepted the request, or a worker of LitServe. The rule of the default.

Why there are two: docs/adr/0032-engines.md.
"""

from dataclasses import dataclass

from mlops_assets.clients.bundle_record import BundleRecord
from mlops_assets.schema.solution import Engine
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.latency import Latency

LONGEST_MILLISECONDS = 5.0
"""The longest median time of one row in the process that accepts requests: so long every other request of the process waits."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and the reason for it in a sentence."""

    engine: Engine
    reason: str


def choose_engine(contract: Contract, configured: Engine | None, latency: Latency) -> EngineChoice:
    """The engine of a candidate: what its model admits, then what the YAML declares, then what the measured `latency` suggests."""
    if (choice := _decided(contract, configured)) is not None:
        return choice
    measured = f"one row takes {latency.p50:.2g} ms (median of {latency.rows}; 99 of 100 within {latency.p99:.2g} ms)"
    if latency.p50 <= LONGEST_MILLISECONDS:
        return EngineChoice("process", f"{measured}, at most {LONGEST_MILLISECONDS:g} ms")
    return EngineChoice("worker", f"{measured}, more than {LONGEST_MILLISECONDS:g} ms, for which other requests would wait")


def recorded_engine(contract: Contract, configured: Engine | None, record: BundleRecord) -> EngineChoice:
    """The engine of an accepted version: what its model admits, then what the YAML declares now, then what its signed `record` has."""
    if (choice := _decided(contract, configured)) is not None:
        return choice
    if record.engine == "worker":
        return EngineChoice("worker", record.engine_reason or "")
    return EngineChoice("process", record.engine_reason or "the version was accepted before engines were chosen by latency")


def _decided(contract: Contract, configured: Engine | None) -> EngineChoice | None:
    if contract.model_format == "skops":
        return EngineChoice("worker", f"the model has no ONNX form: {contract.no_onnx}")
    return None if configured is None else EngineChoice(configured, "serving.engine of the YAML file")
