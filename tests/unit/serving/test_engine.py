import pytest
from bundles import contract, record_of

from mlops_assets.clients.bundle_record import BundleRecord
from mlops_assets.serving.engine import choose_engine, recorded_engine
from mlops_assets.serving.latency import Latency

FAST, SLOW = Latency(p50=0.05, p99=30.0, rows=200), Latency(p50=12.0, p99=30.0, rows=200)
WITHOUT_ONNX = {"model_format": "skops", "no_onnx": "no converter", "trusted_types": ["a.B"]}


def record(**changes: str) -> BundleRecord:
    return record_of("flights", 1, **changes)


def test_the_measured_latency_decides_and_is_the_reason() -> None:
    choice = choose_engine(contract(), None, FAST)
    assert (choice.engine, choice.reason) == (
        "process",
        "one row takes 0.05 ms (median of 200; 99 of 100 within 30 ms), at most 5 ms",
    )
    choice = choose_engine(contract(), None, SLOW)
    assert (choice.engine, "more than 5 ms" in choice.reason) == ("worker", True)


def test_the_file_wins_over_the_latency_and_over_the_record() -> None:
    assert choose_engine(contract(), "worker", FAST).engine == "worker"
    assert choose_engine(contract(), "process", SLOW).engine == "process"
    accepted = record(engine="worker", engine_reason="slow")
    assert (recorded_engine(contract(), None, accepted).engine, recorded_engine(contract(), None, accepted).reason) == (
        "worker",
        "slow",
    )
    assert recorded_engine(contract(), "process", accepted).engine == "process"


def test_a_model_without_onnx_form_has_workers_whatever_was_declared() -> None:
    skops = contract(**WITHOUT_ONNX)
    for choice in (choose_engine(skops, "process", FAST), recorded_engine(skops, "process", record(engine="process"))):
        assert (choice.engine, choice.reason) == ("worker", "the model has no ONNX form: no converter")


def test_a_version_of_an_earlier_release_answers_in_the_process() -> None:
    assert recorded_engine(contract(), None, record()).engine == "process"


def test_a_format_has_its_reason_and_its_types() -> None:
    with pytest.raises(ValueError, match="belong to the format skops"):
        contract(no_onnx="no converter")
    with pytest.raises(ValueError, match="belong to the format skops"):
        contract(model_format="skops")
