"""The signed reference of a version, in a real MLflow whose tags and artifacts somebody else can write."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from bundles import record_of
from clinic import solution_inputs
from registry_database import new_registry_url

from mlops_assets.clients.bundle_record import EvidenceError
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import RegisteredModel
from mlops_assets.clients.signatures import Signer
from mlops_assets.core.settings import Settings
from mlops_assets.local.adoption import sign_version
from mlops_assets.ml.best_version import Lead
from mlops_assets.ml.reference_windows import METRIC_SCHEMA, NO_VARIATION
from mlops_assets.ml.usual_drift import NOTHING_USUAL
from mlops_assets.training.monitoring_reference import load_leads, load_reference, log_reference
from mlops_assets.training.reference_period import REFERENCE_WINDOW, ReferencePeriod

TRAINING = record_of("clinic", 1).training
REMEDY = "Materialize the evaluation of clinic for 2020-03-01 again"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelRegistry]:
    home = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patched:
        # The artifacts of a database without a server lie in the current folder.
        patched.chdir(home)
        registry = ModelRegistry(new_registry_url(home), "", Signer(home / "signing_key"))
        registry.client.create_registered_model("clinic")
        yield registry


def register(registry: ModelRegistry, bundle: Path) -> RegisteredModel:
    """A version with the bundle of one file, as `model` registers it."""
    run_id = registry.start_run("clinic", name="2020-03-01", tags={})
    made = registry.client.create_model_version("clinic", f"runs:/{run_id}", run_id=run_id, tags=TRAINING.tags)
    bundle.mkdir()
    (bundle / "model.onnx").write_bytes(b"model")
    version = registry.get("clinic", int(made.version))
    registry.log_bundle(version, bundle, training=TRAINING, precision=record_of("clinic", version.version).precision)
    return registry.get("clinic", version.version)


def evaluate(
    registry: ModelRegistry, settings: Settings, version: RegisteredModel, shift: int, period: ReferencePeriod | None = None
) -> None:
    """Store and sign the reference of `version`, as its evaluation does; the ages of the hold-out begin with `shift`."""
    count, began = 400, datetime(2020, 2, 1, tzinfo=UTC)
    at = [began + timedelta(hours=number) for number in range(count)]
    holdout = pa.table(
        {
            "id": range(count),
            "day": pa.array([moment.date() for moment in at], pa.date32()),
            "at": at,
            "late": [number % 3 == 0 for number in range(count)],
            "age": pa.array(np.arange(count) % 90 + shift, pa.int64()),
        }
    )
    scored = pa.table({"score": pa.array(np.linspace(0, 1, count), pa.float32()), "predicted_label": [0] * count})
    inputs = solution_inputs("daily")
    log_reference(
        duckdb.connect(),
        registry,
        settings,
        inputs,
        candidate=version,
        holdout=holdout,
        scored=scored,
        period=period,
        importance={"age": 0.1},
        leads=LEADS,
    )


LEADS = {"roc_auc": Lead(version=1, loss=0.02, variance=1e-6)}


def stored(registry: ModelRegistry, version: RegisteredModel, name: str) -> Path:
    """The file of the reference where MLflow keeps it."""
    location = registry.client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")
    return Path(location) / "reference" / name


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A machine that keeps what it wrote."""
    return Settings(home=tmp_path / "home")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    """A machine that keeps nothing yet."""
    return Settings(home=tmp_path / "elsewhere")


@pytest.fixture
def version(registry: ModelRegistry, settings: Settings, tmp_path: Path) -> RegisteredModel:
    version = register(registry, tmp_path / "bundle")
    evaluate(registry, settings, version, shift=0)
    return registry.get("clinic", version.version)


def test_a_reference_is_read_as_it_was_signed_and_may_be_signed_again(
    registry: ModelRegistry, settings: Settings, version: RegisteredModel
) -> None:
    reference = load_reference(registry, settings, version)
    assert (reference.summary.rows, reference.partitions, reference.rows.num_rows) == (400, 17, 400)
    assert reference.leads == load_leads(registry, settings, version) == LEADS
    evaluate(registry, settings, version, shift=5)
    again = registry.get("clinic", version.version)
    assert min(load_reference(registry, settings, again).rows.column("age").to_pylist()) == 5
    assert registry.registered_record(again) == registry.registered_record(version)


def test_the_windows_before_tell_how_much_windows_differ(
    registry: ModelRegistry, settings: Settings, elsewhere: Settings, version: RegisteredModel
) -> None:
    # A version that was evaluated before windows were looked at, or over too few of them.
    before = load_reference(registry, settings, version)
    assert (before.variation, before.usual_drift, before.importance) == (NO_VARIATION, NOTHING_USUAL, {"age": 0.1})
    windows = [
        {"window": str(number), "slice": "", "metric": "roc_auc", "value": 0.7 + number / 100, "error": 0.001}
        for number in range(8)
    ]
    rows = pa.table(
        {
            REFERENCE_WINDOW: np.repeat([str(number) for number in range(8)], 500),
            # The last window is another one.
            "age": np.tile(np.arange(500) % 90, 8) + 10 * (np.arange(4000) >= 3500),
            "score": pa.array(np.tile(np.linspace(0.4, 0.5, 500), 8), pa.float32()),
            "late": np.arange(4000) % 3 == 0,
        }
    )
    period = ReferencePeriod(rows, pa.Table.from_pylist(windows, schema=METRIC_SCHEMA))
    evaluate(registry, settings, version, shift=0, period=period)
    after = load_reference(registry, elsewhere, registry.get("clinic", version.version))
    # Rows are expected as the hold-out has them.
    assert (after.summary.rows, after.rows.num_rows) == (400, 400)
    described = {column["feature"]: column for column in after.summary.columns.to_pylist()}
    assert {name: column["rows"] for name, column in described.items()} == {"age": 4000, "late": 4000, "score": 400}
    assert (described["age"]["high"], described["score"]["high"]) == (99, 1)
    assert after.usual_drift.windows(("age", "wasserstein")) == 8
    limit = after.usual_drift.limit(("age", "wasserstein"), 0.5)
    assert after.usual_drift.median(("age", "wasserstein")) < limit / 2
    variation = after.variation
    # The hold-out of 17 days is as long as 17 / 7 windows.
    assert (variation.windows, round(variation.held_out, 3)) == (8, 2.429)
    # The last three are the hold-out: each part moves about its own level, 0 to 4 and 5 to 7 hundredths.
    assert variation.between["", "roc_auc"] == pytest.approx(np.sqrt((10 + 2) / 6) / 100, rel=0.01)


@pytest.mark.parametrize("name", ["rows.parquet", "columns.parquet", "masses.parquet", "facts.json"])
def test_a_reference_that_somebody_replaced_silences_no_report(
    registry: ModelRegistry, settings: Settings, elsewhere: Settings, version: RegisteredModel, name: str
) -> None:
    path = stored(registry, version, name)
    before = path.read_bytes()
    path.write_bytes(before + b" ")
    with pytest.raises(EvidenceError, match=rf"is not the one that its evaluation signed \({name}\)\. {REMEDY}"):
        load_reference(registry, elsewhere, version)
    path.unlink()
    with pytest.raises(EvidenceError, match=rf"\({name}\)\. {REMEDY}"):
        load_reference(registry, elsewhere, version)
    # The machine that wrote it reads what was signed.
    assert load_reference(registry, settings, version).summary.rows == 400
    # The remedy.
    evaluate(registry, settings, version, shift=0)
    assert load_reference(registry, elsewhere, registry.get("clinic", version.version)).summary.rows == 400


@pytest.mark.parametrize("name", ["rows.parquet", "columns.parquet", "masses.parquet", "facts.json"])
def test_a_copy_that_somebody_changed_is_fetched_again(
    registry: ModelRegistry, settings: Settings, version: RegisteredModel, name: str
) -> None:
    kept = settings.references_directory / "clinic" / str(version.version) / name
    signed = kept.read_bytes()
    kept.write_bytes(signed + b" ")
    assert load_reference(registry, settings, version).summary.rows == 400
    assert kept.read_bytes() == signed
    kept.unlink()
    assert load_reference(registry, settings, version).summary.rows == 400


def test_a_reference_is_fetched_once(registry: ModelRegistry, elsewhere: Settings, version: RegisteredModel) -> None:
    fetched = load_reference(registry, elsewhere, version)
    for path in stored(registry, version, "").iterdir():
        path.unlink()
    assert load_reference(registry, elsewhere, version) == fetched


def test_a_reference_that_is_gone_is_missed(registry: ModelRegistry, elsewhere: Settings, version: RegisteredModel) -> None:
    for path in stored(registry, version, "").iterdir():
        path.unlink()
    stored(registry, version, "").rmdir()
    with pytest.raises(EvidenceError, match=f"is missing in MLflow. {REMEDY}"):
        load_reference(registry, elsewhere, version)


def test_the_tags_of_another_reference_open_nothing(
    registry: ModelRegistry, settings: Settings, version: RegisteredModel, tmp_path: Path
) -> None:
    """Neither hashes that somebody wrote, nor files and tags of another version, nor a signature for another purpose."""
    other = register(registry, tmp_path / "other")
    evaluate(registry, settings, other, shift=50)
    other = registry.get("clinic", other.version)
    copied = {name: other.tags[name] for name in ("reference_record", "reference_signature")}
    genuine = dict(version.tags)
    for forged in (
        {"reference_record": other.tags["reference_record"]},
        copied,
        {"reference_signature": version.tags["registration_signature"]},
    ):
        registry.tag("clinic", version.version, forged)
        with pytest.raises(
            EvidenceError, match=f"The monitoring reference of Version {version.version} of clinic was changed .*{REMEDY}"
        ):
            load_reference(registry, settings, registry.get("clinic", version.version))
        registry.tag("clinic", version.version, genuine)
    registry.tag("clinic", version.version, {"training_date": "2020-03-02"})
    with pytest.raises(EvidenceError, match="was changed in MLflow after it was registered"):
        load_reference(registry, settings, registry.get("clinic", version.version))
    registry.tag("clinic", version.version, genuine)
    registry.client.delete_model_version_tag("clinic", str(version.version), "reference_signature")
    with pytest.raises(EvidenceError, match=f"has no signed monitoring reference .*{REMEDY}"):
        load_reference(registry, settings, registry.get("clinic", version.version))


def test_what_was_registered_is_signed_again_after_its_key_was_lost(
    registry: ModelRegistry, settings: Settings, version: RegisteredModel, tmp_path: Path
) -> None:
    registry = replace(registry, signer=Signer(tmp_path / "another_key"))
    with pytest.raises(EvidenceError, match="was changed in MLflow after it was registered"):
        registry.registered_record(version)
    sign_version(registry, registry.get("clinic", version.version))
    adopted = registry.get("clinic", version.version)
    assert load_reference(registry, settings, adopted).summary.rows == 400
    record = registry.registered_record(adopted)
    assert (record.training.training_date, list(record.files)) == (date(2020, 3, 1), ["model.onnx"])
    # A version that was never evaluated has no reference, and is signed without one.
    never = register(registry, tmp_path / "never")
    registry.client.delete_model_version_tag("clinic", str(never.version), "registration_signature")
    sign_version(registry, registry.get("clinic", never.version))
    assert registry.registered_record(registry.get("clinic", never.version))
