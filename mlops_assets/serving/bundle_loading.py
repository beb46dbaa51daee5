"""Loading of serving bundles: the files are those of a signed record, and the model answers its sample before it serves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from mlops_assets.clients.bundle_record import served_record
from mlops_assets.clients.signatures import Signer
from mlops_assets.serving.bundle import CONTRACT_FILE, SAMPLE_FILE, Bundle, BundleError, OnnxModel, PredictingModel, file_hash
from mlops_assets.serving.contract import Contract
from mlops_assets.serving.recalibrated_model import apply_contract
from mlops_assets.serving.sample import Sample

_Model = TypeVar("_Model", bound=BaseModel)


def load_bundle(path: Path, files: Mapping[str, str], threads: int = 0) -> Bundle:
    """Load the bundle in the folder `path`, compare it with `files`, and let it answer its sample.

    `files` are the SHA-256 of all files of the bundle by name, from a record that is not in the folder. The model runs in `threads`
    threads (0 = one a processor core).

    Raises BundleError when a file is missing or not valid, is not the one of the record, or the model does not answer the sample
    as the fitted model did.
    """
    contents = _read(path, files)
    contract = _contract(path, contents)
    content = contents[contract.model_file]
    model = (
        _skops_model(path, contract, content)
        if contract.model_format == "skops"
        else _onnx_model(path, contract, content, threads)
    )
    sample = _parse(Sample, path / SAMPLE_FILE, contents[SAMPLE_FILE])
    bundle = Bundle(path, contract, sample, apply_contract(model, contract))
    bundle.verify()
    return bundle


def open_bundle(path: Path, files: Mapping[str, str], model: PredictingModel) -> Bundle:
    """The bundle in the folder `path` for which `model` answers in another process, recalibrated there: its own is not loaded.

    Raises as `load_bundle` does.
    """
    contents = _read(path, files)
    return Bundle(path, _contract(path, contents), _parse(Sample, path / SAMPLE_FILE, contents[SAMPLE_FILE]), model)


def _onnx_model(path: Path, contract: Contract, content: bytes, threads: int) -> OnnxModel:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    # Threads that spin while they wait take the processor from whoever they wait for: on a busy machine four times as slow.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads
    try:
        session = InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of ONNX Runtime have no class in common
        raise BundleError(f"{path / contract.model_file} is no model that ONNX Runtime can run: {error}") from error
    return OnnxModel(session, "value" if contract.problem == "regression" else "probabilities")


def _skops_model(path: Path, contract: Contract, content: bytes) -> PredictingModel:
    from mlops_assets.ml.skops_model import load_skops

    try:
        return load_skops(content, contract.trusted_types, contract.feature_schema, contract.problem)
    except Exception as error:  # whatever a library raises whose estimator is restored
        raise BundleError(f"{path / contract.model_file} cannot be loaded: {error}") from error


def load_deployed(bundle: Path, signer: Signer, threads: int = 0) -> Bundle:
    """The bundle in the folder `bundle`, which has to be the one that passed its gates: a signed record beside it says so.

    Raises EvidenceError without a genuine record, and BundleError when the files are not those of the record.
    """
    record = served_record(signer, bundle)
    try:
        return load_bundle(bundle, record.files, threads)
    except BundleError as error:
        raise BundleError(
            f"{error} Remove {bundle} to have the bundle fetched from the model registry again, then: "
            f'mlops promote {record.solution} --to {record.version} --reason "restore its bundle"'
        ) from error


def load_contract(path: Path, files: Mapping[str, str]) -> Contract:
    """The contract of the bundle in the folder `path`, without its model. Raises BundleError as `load_bundle` does."""
    return _contract(path, _read(path, files))


def _contract(path: Path, contents: Mapping[str, bytes]) -> Contract:
    """The contract among the files of a bundle, whose model is there too."""
    contract = _parse(Contract, path / CONTRACT_FILE, contents[CONTRACT_FILE])
    if contract.model_file not in contents:
        raise BundleError(f"{path / contract.model_file} is missing.")
    return contract


def _read(path: Path, files: Mapping[str, str]) -> dict[str, bytes]:
    """The content of all files of the bundle, which are the ones of the record `files` and no others."""
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
    if added := sorted(present - set(files)):
        raise BundleError(f"{path / added[0]} does not belong to the bundle: it was added after promotion.")
    if missing := sorted({CONTRACT_FILE, SAMPLE_FILE, *files} - present):
        raise BundleError(f"{path / missing[0]} is missing.")
    contents = {name: (path / name).read_bytes() for name in files}
    # What is read is what is compared: a file that changes in between is not loaded.
    if changed := [str(path / name) for name, content in contents.items() if file_hash(content) != files[name]]:
        raise BundleError(f"{', '.join(changed)} was changed after promotion: the SHA-256 is not the one of the signed record.")
    return contents


def _parse(kind: type[_Model], path: Path, content: bytes) -> _Model:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"{path} is not valid: {_first_error(error)}") from error


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"
