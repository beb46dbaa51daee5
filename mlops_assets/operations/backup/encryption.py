"""Encryption of the files of a backup by age: to recipients, whose identities alone can read it. Streams; a file is never whole in memory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mlops_assets.core.errors import StackError

if TYPE_CHECKING:
    from pyrage.x25519 import Identity as _Identity
    from pyrage.x25519 import Recipient as _Recipient


class Recipients:
    """Those who can read what is encrypted, by their public keys `names` (age1...). Raises StackError for one that is none."""

    def __init__(self, names: Sequence[str]):
        pyrage = _package()
        self.names = sorted(set(names))
        self._keys: list[_Recipient] = []
        for name in self.names:
            try:
                self._keys.append(pyrage.x25519.Recipient.from_str(name))
            except pyrage.RecipientError as error:
                raise StackError(
                    f"{name!r} is no recipient of age: {error}.",
                    remedy="Give the public key of an identity, age1...: age-keygen -y identity.txt shows it.",
                ) from error

    def encrypt(self, source: BinaryIO, target: BinaryIO) -> tuple[str, int, str]:
        """Encrypt the content of `source`. Returns its SHA-256 and size, and the SHA-256 of what was written."""
        plain, encrypted = _Measured(source), _Measured(target)
        _package().encrypt_io(plain, encrypted, self._keys)
        return plain.sha256, plain.size, encrypted.sha256


class Identity:
    """The private keys in the file `path`, as `age-keygen` writes it. Raises StackError when there are none."""

    def __init__(self, path: Path):
        pyrage = _package()
        self.path = path
        try:
            lines = [line.strip() for line in path.read_text().splitlines()]
            self._keys: list[_Identity] = [
                pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")
            ]
        except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
            raise StackError(
                f"There is no identity of age in {path}: {error}.", remedy="Name the file that age-keygen wrote."
            ) from error
        if not self._keys:
            raise StackError(f"There is no identity of age in {path}.", remedy="Name the file that age-keygen wrote.")

    def decrypt(self, source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
        """Decrypt the content of `source`. Returns the SHA-256 and the size of what was written.

        Raises DecryptionError for what was changed or cut, or is for others.
        """
        pyrage, plain = _package(), _Measured(target)
        try:
            pyrage.decrypt_io(source, plain, self._keys)
        except (pyrage.DecryptError, OSError) as error:
            raise DecryptionError(str(error)) from error
        return plain.sha256, plain.size


class DecryptionError(Exception):
    """A file cannot be decrypted by an identity."""


class _Measured:
    """A file whose bytes are counted and hashed as they go through."""

    def __init__(self, file: BinaryIO):
        self._file, self._digest, self.size = file, hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int = -1) -> bytes:
        return self._measured(self._file.read(size))

    def write(self, data: bytes) -> int:
        self._measured(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def _measured(self, data: bytes) -> bytes:
        self._digest.update(data)
        self.size += len(data)
        return data


def _package() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise StackError(
            "Encrypted backups need a package that is not installed.", remedy="pip install 'mlops-assets[encryption]'"
        ) from error
    return pyrage
