"""Certificate authorities for tests. As a program: the files that a site with its own authority would supply."""

import argparse
import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem_of(key: Key) -> str:
    """Return a private key in PEM, without a passphrase."""
    form, protection = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, protection).decode()


def alternative(name: str) -> x509.GeneralName:
    """Return a DNS name or an address as a certificate holds it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def to_pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    key: Key
    certificate: x509.Certificate

    @classmethod
    def new(
        cls, name: str, parent: "Authority | None" = None, *, key: Key | None = None, days: float = 30, ca: bool = True
    ) -> "Authority":
        """Make an authority that signs itself, or that its parent signs; it may lack the right to sign others."""
        key = key or rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = parent.certificate.subject if parent else subject
        builder = dated(x509.CertificateBuilder(), days=days).subject_name(subject).issuer_name(issuer)
        builder = builder.public_key(key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return cls(key, builder.sign(parent.key if parent else key, hashes.SHA256()))

    @property
    def pem(self) -> str:
        """The authority's certificate in PEM."""
        return to_pem(self.certificate)

    def issue(self, key: Key, names: list[str], *, days: float = 365, starts_in_days: float = -1) -> str:
        """Return a certificate in PEM for a key and names."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = dated(x509.CertificateBuilder(), days=days, starts_in_days=starts_in_days)
        builder = builder.subject_name(subject).issuer_name(self.certificate.subject).public_key(key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative(name) for name in names]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        return to_pem(builder.sign(self.key, hashes.SHA256()))

    def sign(self, request: str, *, days: float = 365) -> str:
        """Return the certificate in PEM that a request asks for."""
        csr = x509.load_pem_x509_csr(request.encode())
        builder = dated(x509.CertificateBuilder(), days=days).subject_name(csr.subject)
        builder = builder.issuer_name(self.certificate.subject).public_key(csr.public_key())
        for extension in csr.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return to_pem(builder.sign(self.key, hashes.SHA256()))


def dated(builder: x509.CertificateBuilder, *, days: float, starts_in_days: float = -1) -> x509.CertificateBuilder:
    """Give a certificate its dates and a serial number."""
    now = datetime.datetime.now(datetime.UTC)
    start = now + datetime.timedelta(days=min(starts_in_days, days - 1))
    builder = builder.not_valid_before(start).not_valid_after(now + datetime.timedelta(days=days))
    return builder.serial_number(x509.random_serial_number())


def supply(
    directory: Path,
    names: list[str],
    *,
    root: Authority | None = None,
    days: float = 365,
    starts_in_days: float = -1,
    authority_days: float = 30,
) -> None:
    """Write tls.crt with its chain, tls.key and ca.crt to a folder, as a site does that has an authority."""
    root = root or Authority.new("Site root")
    intermediate = Authority.new("Site intermediate", parent=root, days=authority_days)
    key = rsa.generate_private_key(65537, 2048)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / "tls.key").write_text(pem_of(key), encoding="ascii")
    (directory / "ca.crt").write_text(root.pem, encoding="ascii")
    chain = intermediate.issue(key, names, days=days, starts_in_days=starts_in_days) + intermediate.pem
    (directory / "tls.crt").write_text(chain, encoding="ascii")


def main() -> None:
    """Write tls.crt with its chain, tls.key and ca.crt to a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--name", action="append", required=True, help="DNS name or address; repeatable")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    supply(options.directory, options.name)


if __name__ == "__main__":
    main()
