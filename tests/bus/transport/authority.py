"""A private certificate authority in a folder, and what it signs: for a Redis with TLS."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CERTIFIES = x509.KeyUsage(
    key_cert_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


class Authority:
    """`certificate`: the path of its own."""

    def __init__(self, folder: Path, *, says_its_use: bool = True) -> None:
        """`says_its_use`: its certificate has a key usage, without which Python takes it up to 3.12 only."""
        self.folder = folder
        self._says_its_use = says_its_use
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private authority")])
        self.certificate = folder / "ca.pem"
        self.certificate.write_bytes(_pem(self._signed(self._name, self._key.public_key(), is_authority=True)))

    def sign(self, name: str) -> tuple[Path, Path]:
        """Paths of a new certificate for 127.0.0.1 and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_path, key_path = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate_path.write_bytes(_pem(self._signed(subject, key.public_key())))
        key_path.write_bytes(private(key))
        return certificate_path, key_path

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, is_authority: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            # Python 3.13 refuses what does not name the key of who signed it, and an authority that does not say what it is for.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if is_authority and self._says_its_use:
            builder = builder.add_extension(CERTIFIES, critical=True)
        return builder.sign(self._key, hashes.SHA256())


def private(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> bytes:
    """In PEM."""
    how = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
