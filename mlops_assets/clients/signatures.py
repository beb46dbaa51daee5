"""Signatures of this installation: an HMAC with a key that lies in the state folder, readable by the owner alone.

Whoever may write to MLflow, or to a folder of bundles, cannot make one.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_assets.access.credentials import ensure_secret


@dataclass(frozen=True)
class Signer:
    """Signs statements with the key in `key_file`, which the first use makes."""

    key_file: Path

    def sign(self, purpose: str, statement: Mapping[str, Any]) -> str:
        """The signature under `statement`, in hexadecimal. That of another `purpose` is another one."""
        content = json.dumps([purpose, statement], sort_keys=True, separators=(",", ":")).encode()
        return hmac.new(self._key(), content, hashlib.sha256).hexdigest()

    def is_genuine(self, signature: str, purpose: str, statement: Mapping[str, Any]) -> bool:
        """Whether `signature` is the one under `statement`; takes the same time wherever a wrong one differs."""
        return hmac.compare_digest(signature.encode(), self.sign(purpose, statement).encode())

    def _key(self) -> bytes:
        return ensure_secret(self.key_file).encode()
