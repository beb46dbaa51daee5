"""Certificates of an authority that a test makes."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mlops_assets.core.listening import Listening

_DAY = timedelta(days=1)


class Authority:
    """A certificate authority, whose own certificate is the file `path`."""

    def __init__(self, folder: Path):
        folder.mkdir(exist_ok=True)
        self.folder, self.path = folder, folder / "authority.pem"
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), _name("An authority of tests")
        certificate = (
            _builder(self._name, self._key, self._name, datetime.now(UTC) + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(is_authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *hosts: str, until: datetime | None = None) -> tuple[Path, Path, int]:
        """A certificate for the `hosts` in `<name>.pem`, replaced whole as renewals do. Returns it, its key, and its number."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(hosts[0]), key, self._name, until or datetime.now(UTC) + _DAY)
        certificate = (
            builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files = {self.folder / f"{name}.pem": certificate.public_bytes(Encoding.PEM), self.folder / f"{name}.key": pem}
        for path, content in files.items():
            scratch = path.with_suffix(".new")
            scratch.write_bytes(content)
            scratch.replace(path)
        return (*files, certificate.serial_number)  # type: ignore[return-value]

    def listening(self, name: str = "server", *hosts: str) -> Listening:
        """Servers on loopback with a new certificate for the `hosts`, and clients that trust this authority."""
        certificate, key, _ = self.issue(name, *(hosts or ("127.0.0.1",)))
        return Listening(certificate=certificate, key=key, authorities=self.path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _host(host: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(host)) if host[0].isdecimal() else x509.DNSName(host)


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, until: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - 2 * _DAY)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
