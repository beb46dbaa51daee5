"""The key of an installation, and what it signs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlops_assets.clients.signatures import Signer


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    signer = Signer(tmp_path / "home" / "signing_key")
    with ThreadPoolExecutor(8) as pool:
        signatures = set(pool.map(lambda _: signer.sign("accepted", {"version": 1}), range(16)))
    assert len(signatures) == 1
    assert signer.key_file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in signer.key_file.parent.iterdir()] == ["signing_key"]


def test_a_signature_fits_to_one_statement_one_purpose_and_one_installation(tmp_path: Path) -> None:
    signer, other = Signer(tmp_path / "a"), Signer(tmp_path / "b")
    signature = signer.sign("accepted", {"version": 1, "solution": "x"})
    assert signer.is_genuine(signature, "accepted", {"solution": "x", "version": 1})
    assert not signer.is_genuine(signature, "accepted", {"solution": "x", "version": 2})
    assert not signer.is_genuine(signature, "registered", {"solution": "x", "version": 1})
    assert not other.is_genuine(signature, "accepted", {"solution": "x", "version": 1})
    assert not signer.is_genuine("é", "accepted", {"solution": "x", "version": 1})
