#!/usr/bin/python
"""Key, certificate and authority of one service on one host, in a single module run."""

from __future__ import annotations

import datetime
import grp
import ipaddress
import os
import pwd
import re
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

DOCUMENTATION = r"""
module: certificate_request
short_description: Keep the key of a service, and ask for a certificate only when a new one is needed
description:
  - Makes the private key if it is missing, keeps owners and modes, and writes the certificate of the authority.
  - Judges the certificate that is there. If it has to be replaced, returns a signing request and the reason.
  - With O(certificate), judges the given certificate first and installs it only if it is good.
options:
  directory:
    description: Folder of the service. Its parent is made readable to all, itself to O(group) only.
    type: path
    required: true
  key_file:
    description: Name of the key in O(directory).
    type: str
    default: tls.key
  owner:
    description: Owner of everything that the module writes.
    type: str
    default: root
  group:
    description: Group that may read the key. It must exist.
    type: str
    required: true
  ca_certificate:
    description: Certificates of the trusted authorities, in PEM. Empty only in check mode, before there is any.
    type: str
    required: true
  names:
    description: DNS names and addresses of the certificate.
    type: list
    elements: str
    required: true
  exact_names:
    description: Whether a certificate with more names than O(names) has to be replaced too.
    type: bool
    default: true
  common_name:
    description: Common name, of at most 64 characters.
    type: str
    required: true
  organizational_unit:
    description: Tells the certificates of one host apart.
    type: str
    required: true
  renew_before_days:
    description: A certificate that ends within so many days has to be replaced.
    type: int
    default: 60
  certificate:
    description: Certificate with its chain, in PEM, to verify and install.
    type: str
  private_key:
    description: Key of O(certificate), in PEM. Without it, O(certificate) must belong to the key on the host.
    type: str
  origin:
    description: Where O(certificate) comes from, for messages.
    type: str
    default: the given certificate
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
requirements:
  - cryptography 36 or later
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Ask for a certificate if one is needed
  certificate_request:
    directory: /etc/pki/bank/postgresql
    group: postgres
    ca_certificate: "{{ lookup('ansible.builtin.file', 'pki/ca.crt') }}"
    names: [db1.bank.internal, localhost, 192.0.2.7]
    common_name: db1.bank.internal
    organizational_unit: postgresql
  register: request
"""

RETURN = r"""
csr:
  description: Signing request in PEM; empty if no certificate is needed, and in check mode.
  returned: always
  type: str
reason:
  description: Why the certificate has to be replaced; empty if it does not have to be.
  returned: always
  type: str
not_after:
  description: End of the certificate on the host, in ISO 8601; empty if there is none.
  returned: always
  type: str
"""

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    CRYPTOGRAPHY_ERROR = None
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()

PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
PRIVATE, PUBLIC = 0o640, 0o644
# Not datetime.UTC, which the Python of RHEL 9 does not have.
UTC = datetime.timezone(datetime.timedelta(0))


class Refused(Exception):
    """A certificate, key or authority that cannot be used; the text says why, the remedy what a site does about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


def read(path: Path) -> bytes | None:
    """Return the content of a file, or None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def certificates_in(pem: bytes) -> list[x509.Certificate]:
    """Return all certificates of a PEM text, in its order.

    Raises:
        Refused: one of them cannot be read, or there is none.
    """
    blocks = PEM_CERTIFICATE.findall(pem)
    if not blocks:
        raise Refused("it holds no certificate in PEM", "Write tls.crt in PEM, its own certificate first")
    try:
        return [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError as error:
        raise Refused(f"it cannot be read: {error}", "Write tls.crt in PEM again") from error


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """Return a private key.

    Raises:
        Refused: the text is no EC or RSA key without a passphrase.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise Refused(
            "its private key is protected by a passphrase",
            "Write tls.key without one (openssl pkey -in tls.key)",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("its private key cannot be read", "Write tls.key in PEM again") from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise Refused("its private key is neither EC nor RSA", "Order a certificate for a key of one of these kinds")
    return key


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key: P-256, which every service and every crypto policy accepts."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """Return a private key in PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_bytes(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    """Return what two keys of the same pair have in common."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def start_and_end(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """Return both dates with their time zone, for old and new versions of cryptography."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return certificate.not_valid_before.replace(tzinfo=UTC), certificate.not_valid_after.replace(tzinfo=UTC)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the issuer signed the certificate."""
    if certificate.issuer != issuer.subject:
        return False
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    key, digest = issuer.public_key(), certificate.signature_hash_algorithm
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def may_issue(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate may sign others; old roots do not say so."""
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return True


def out_of_date(certificate: x509.Certificate, now: datetime.datetime) -> tuple[str, str]:
    """Return why a certificate does not hold at a moment and what to do about it, or two empty texts."""
    start, end = start_and_end(certificate)
    if start > now:
        return f"is valid from {start:%Y-%m-%d %H:%M} UTC only", "Put the host's clock right, or wait until then"
    if end <= now:
        return f"ended on {end:%Y-%m-%d}", "Put its successor there"
    return "", ""


def path_of(
    chain: list[x509.Certificate], trusted: list[x509.Certificate], now: datetime.datetime
) -> list[x509.Certificate]:
    """Return the way from the first certificate of a chain to a trusted one, by signatures.

    Of several issuers one that holds at the moment is taken.

    Raises:
        Refused: there is no such way.
    """
    path, others = chain[:1], chain[1:]
    while path[-1] not in trusted:
        issuers = [
            candidate
            for candidate in [*trusted, *others]
            if candidate not in path and may_issue(candidate) and issued_by(path[-1], candidate)
        ]
        if not issuers:
            raise Refused(
                "it was not issued by the authority",
                f"Append the certificate of {path[-1].issuer.rfc4514_string()} to tls.crt, or to ca.crt if it is the "
                "authority that hosts trust",
            )
        path.append(min(issuers, key=lambda issuer: bool(out_of_date(issuer, now)[0])))
    return path


def normal(name: str) -> str:
    """Return a name or address in the form in which two of them can be compared."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def names_in(certificate: x509.Certificate) -> set[str]:
    """Return all names and addresses of a certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    found = names.get_values_for_type(x509.DNSName)
    return {normal(str(name)) for name in [*found, *names.get_values_for_type(x509.IPAddress)]}


def covered(name: str, names: set[str]) -> bool:
    """Tell whether a name is among the names of a certificate, also through a wildcard."""
    return name in names or ("." in name and "*." + name.split(".", 1)[1] in names)


@dataclass(frozen=True)
class Expected:
    """What a certificate must be to stay, or to be accepted."""

    trusted: list[x509.Certificate]
    names: set[str]
    exact_names: bool
    now: datetime.datetime


def judge(
    pem: bytes,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None,
    expected: Expected,
    renew_before: datetime.timedelta,
) -> x509.Certificate:
    """Return the certificate; without a key, whether they belong together is left open.

    Raises:
        Refused: it has to be replaced; the text says why.
    """
    chain = certificates_in(pem)
    certificate = chain[0]
    end = start_and_end(certificate)[1]
    present = names_in(certificate)
    missing = sorted(
        name for name in expected.names if not (name in present if expected.exact_names else covered(name, present))
    )
    surplus = sorted(present - expected.names) if expected.exact_names else []
    if key is not None and public_bytes(certificate.public_key()) != public_bytes(key.public_key()):
        raise Refused(
            "it does not belong to the private key", "Put the key that it was ordered with into tls.key, or order again"
        )
    path = path_of(chain, expected.trusted, expected.now)
    if missing:
        raise Refused(
            "it lacks the name {}".format(", ".join(missing)), "Order one that has it, or one for all hosts (*.DOMAIN)"
        )
    if surplus:
        raise Refused("it has the name {}, which the host has no more".format(", ".join(surplus)))
    for number, link in enumerate(path):
        problem, remedy = out_of_date(link, expected.now)
        if problem:
            who = f"its authority {link.subject.rfc4514_string()}" if number else "it"
            raise Refused(f"{who} {problem}", remedy)
    if end <= expected.now + renew_before:
        raise Refused(f"it ends on {end:%Y-%m-%d}, in less than {renew_before.days} days")
    return certificate


def signing_request(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, common_name: str, organizational_unit: str, names: set[str]
) -> bytes:
    """Return a signing request in PEM, for a certificate that serves and calls."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, organizational_unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    alternatives = []
    for name in sorted(names):
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        # TLS 1.2 suites without forward secrecy need it, and only RSA keys can serve them.
        key_encipherment=isinstance(key, rsa.RSAPrivateKey),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM)


class Folder:
    """The service's folder on the host: compares, and writes unless in check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        """Look up owner and group.

        Raises:
            Refused: one of them does not exist.
        """
        self.module = module
        self.path = Path(module.params["directory"])
        self.changed = False
        self.before: list[str] = []
        self.after: list[str] = []
        try:
            account = pwd.getpwnam(module.params["owner"])
        except KeyError as error:
            raise Refused("The user {} does not exist on this host.".format(module.params["owner"])) from error
        self.owner, self.root_group = account.pw_uid, account.pw_gid
        try:
            self.group = grp.getgrnam(module.params["group"]).gr_gid
        except KeyError as error:
            # In check mode, the package that brings the group may not be installed yet.
            if not module.check_mode:
                raise Refused(
                    "The group {} does not exist on this host: install the package that brings it first, "
                    "or correct certificates_group.".format(module.params["group"])
                ) from error
            self.group = None

    def note(self, before: str, after: str) -> None:
        """Record a difference."""
        self.changed = True
        self.before.append(before)
        self.after.append(after)

    def directory(self, path: Path, group: int | None, mode: int) -> None:
        """Make a directory, or put its owner, group and mode right."""
        if not path.is_dir():
            self.note(f"{path}: absent", f"{path}: directory {mode:04o}")
            if not self.module.check_mode:
                path.mkdir(mode=0o700, parents=True)
        self.access(path, group, mode)

    def access(self, path: Path, group: int | None, mode: int) -> None:
        """Put owner, group, mode and SELinux label right."""
        if not path.exists():
            return
        state = path.stat()
        wanted = (self.owner, self.group if group is None else group, mode)
        actual = (state.st_uid, state.st_gid, state.st_mode & 0o7777)
        if wanted[1] is not None and wanted != actual:
            form = "{0}: owner {1}, group {2}, mode {3:04o}"
            self.note(form.format(path, *actual), form.format(path, *wanted))
            if not self.module.check_mode:
                os.chown(path, wanted[0], wanted[1])
                path.chmod(mode)
        self.changed = self.module.set_default_selinux_context(str(path), self.changed)

    def file(self, name: str, content: bytes | None, mode: int, was: str, becomes: str) -> None:
        """Write a file in one step, so that nobody ever sees half of it or may read it too early."""
        path = self.path / name
        if content is not None and read(path) != content:
            self.note(f"{path}: {was}", f"{path}: {becomes}")
            if not self.module.check_mode:
                handle, new = tempfile.mkstemp(dir=self.path, prefix=".new-")
                try:
                    with os.fdopen(handle, "wb") as stream:
                        stream.write(content)
                        os.fchown(stream.fileno(), self.owner, self.group)
                        os.fchmod(stream.fileno(), mode)
                        stream.flush()
                        os.fsync(stream.fileno())
                    Path(new).replace(path)
                except BaseException:
                    Path(new).unlink()
                    raise
        self.access(path, None, mode)


def described(pem: bytes | None) -> str:
    """Return what a certificate file holds, in words for a diff."""
    if pem is None:
        return "absent"
    try:
        certificate = certificates_in(pem)[0]
    except Refused:
        return "unreadable"
    return "{}, ends {:%Y-%m-%d}, names {}".format(
        certificate.subject.rfc4514_string(), start_and_end(certificate)[1], " ".join(sorted(names_in(certificate)))
    )


def text_of(lines: list[str]) -> str:
    """Return the lines as text."""
    return "".join(line + "\n" for line in lines)


def authorities(module: AnsibleModule) -> list[x509.Certificate]:
    """Return the trusted certificates; none only in check mode."""
    pem = module.params["ca_certificate"].strip().encode()
    if not pem and module.check_mode:
        return []
    try:
        return certificates_in(pem)
    except Refused as error:
        raise Refused(f"The authority's certificate cannot be used: {error}.") from error


def key_on_host(path: Path) -> tuple[ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None, str]:
    """Return the key on the host, or None if a new one is needed, and the words for it."""
    pem = read(path)
    if pem is None:
        return None, "absent"
    try:
        return load_key(pem), "private key"
    except Refused:
        return None, "unreadable"


def given(module: AnsibleModule, folder: Folder, expected: Expected) -> tuple[bytes, bytes | None, datetime.datetime]:
    """Verify the given certificate and return it, its key if that is given too, and its end.

    Raises:
        Refused: it cannot be used.
    """
    params = module.params
    pem = params["certificate"].strip().encode() + b"\n"
    key_pem = params["private_key"].strip().encode() + b"\n" if params["private_key"] else None
    try:
        if key_pem is None:
            key, _ = key_on_host(folder.path / params["key_file"])
            if key is None:
                raise Refused("the host has no private key for it")
        else:
            key = load_key(key_pem)
        certificate = judge(pem, key, expected, datetime.timedelta(0))
    except Refused as error:
        # What the site is told to do is about files that it supplied, key included.
        remedy = f" {error.remedy}, and run again." if key_pem is not None and error.remedy else ""
        raise Refused(f"{params['origin']} is refused, and nothing was changed: {error}.{remedy}") from error
    end = start_and_end(certificate)[1]
    if end <= expected.now + datetime.timedelta(days=params["renew_before_days"]):
        module.warn(f"{params['origin']} ends on {end:%Y-%m-%d}: supply a new one before.")
    return pem, key_pem, end


def requested(
    module: AnsibleModule, folder: Folder, expected: Expected
) -> tuple[bytes | None, str, bytes, datetime.datetime | None]:
    """Return the key to write, the reason for a new certificate, the request for it, and the end of a good one."""
    params = module.params
    key, _ = key_on_host(folder.path / params["key_file"])
    pem = read(folder.path / "tls.crt")
    key_pem, reason, csr, end = None, "", b"", None
    if key is None:
        key = new_key()
        key_pem = key_to_pem(key)
    try:
        if pem is None:
            raise Refused("there is none yet")
        certificate = judge(pem, key, expected, datetime.timedelta(days=params["renew_before_days"]))
        end = start_and_end(certificate)[1]
    except Refused as error:
        reason = str(error)
    if reason and not module.check_mode:
        csr = signing_request(key, params["common_name"], params["organizational_unit"], expected.names)
    return key_pem, reason, csr, end


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work of one module run and return its result."""
    params = module.params
    folder = Folder(module)
    expected = Expected(
        trusted=authorities(module),
        names={normal(name) for name in params["names"]},
        exact_names=params["exact_names"],
        now=datetime.datetime.now(UTC),
    )
    certificate, reason, csr = None, "", b""
    if params["certificate"] is None:
        key_pem, reason, csr, end = requested(module, folder, expected)
    else:
        certificate, key_pem, end = given(module, folder, expected)

    folder.directory(folder.path.parent, folder.root_group, 0o755)
    folder.directory(folder.path, None, 0o750)
    key_file = params["key_file"]
    folder.file(key_file, key_pem, PRIVATE, key_on_host(folder.path / key_file)[1], "new private key")
    there = described(read(folder.path / "tls.crt"))
    folder.file("tls.crt", certificate, PUBLIC, there, described(certificate))
    if reason:
        folder.note(f"{folder.path}/tls.crt: {there}", f"{folder.path}/tls.crt: to be signed, because {reason}")
    if expected.trusted:
        authority = params["ca_certificate"].strip().encode() + b"\n"
        folder.file("ca.crt", authority, PUBLIC, described(read(folder.path / "ca.crt")), described(authority))
    return {
        "changed": folder.changed,
        "csr": csr.decode(),
        "reason": reason,
        "not_after": end.isoformat() if end else "",
        "diff": {"before": text_of(folder.before), "after": text_of(folder.after)},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "key_file": {"type": "str", "default": "tls.key", "no_log": False},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "required": True},
            "ca_certificate": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "exact_names": {"type": "bool", "default": True},
            "common_name": {"type": "str", "required": True},
            "organizational_unit": {"type": "str", "required": True},
            "renew_before_days": {"type": "int", "default": 60},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
            "origin": {"type": "str", "default": "the given certificate"},
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_ERROR:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    try:
        module.exit_json(**run(module))
    except Refused as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
