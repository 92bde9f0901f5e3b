#!/usr/bin/python
"""The repository of the site's package mirror on one host: verified first, then written, or removed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

DOCUMENTATION = r"""
module: mirror_repository
short_description: Let dnf install from a signed mirror, after proving that the mirror works
description:
  - Fetches the key, compares it with a fingerprint, loads the signed metadata with dnf, and only then writes anything.
  - An unchanged host is not asked to use the network.
  - A host that knows the key keeps it, until the fingerprint is another one.
options:
  state:
    description: Whether the host uses the mirror.
    type: str
    choices: [present, absent]
    default: present
  name:
    description: Name of the repository, and of its files.
    type: str
    required: true
  base_url:
    description: Address of the repository.
    type: str
    default: ""
  key_url:
    description: Address of the public key that signs packages and metadata.
    type: str
    default: ""
  key_fingerprint:
    description: Fingerprint that the key must have. Empty means that the first key is trusted.
    type: str
    default: ""
  fingerprint_variable:
    description: Name of the variable that holds the fingerprint, for messages.
    type: str
    default: package_source_mirror_key_fingerprint
  label:
    description: What people read in dnf's list of repositories.
    type: str
    default: Bank platform packages
  enabled:
    description: Whether dnf uses the repository without being told to; else only C(--enablerepo) does.
    type: bool
    default: true
  signed_metadata:
    description: Whether the metadata is signed too. Packages always are.
    type: bool
    default: true
  metadata_expire:
    description: How long dnf uses its copy of the metadata.
    type: str
    default: 1h
  variable:
    description: Name of the variable to correct, for messages.
    type: str
    default: package_mirror_url
  timeout:
    description: Seconds to wait for an answer.
    type: int
    default: 15
  root:
    description: Folder above /etc.
    type: path
    default: /
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author:
  - Bank platform team
"""

EXAMPLES = r"""
- name: Install from the mirror
  mirror_repository:
    name: bank-platform
    base_url: http://mirror.example.com/rpm/el9/x86_64/
    key_url: http://mirror.example.com/rpm/RPM-GPG-KEY-bank-mirror
"""

RETURN = r"""
repository:
  description: Name of the repository, for C(--enablerepo).
  returned: always
  type: str
key_fingerprint:
  description: Fingerprint of the key on the host; empty without a mirror.
  returned: always
  type: str
"""

PUBLIC_KEY_PACKET = 6
ARMOR = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
ARMOR_END = "-----END PGP PUBLIC KEY BLOCK-----"


class Refused(Exception):
    """A mirror or key that cannot be used; the text says why."""


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and body of every OpenPGP packet.

    Raises:
        Refused: the data is not OpenPGP.
    """
    found, at = [], 0
    try:
        while at < len(data):
            first = data[at]
            at += 1
            if not first & 0x80:
                raise Refused("is not an OpenPGP key")
            if first & 0x40:
                tag, length = first & 0x3F, data[at]
                at += 1
                if length >= 255:
                    length, at = int.from_bytes(data[at : at + 4], "big"), at + 4
                elif length >= 192:
                    length, at = ((length - 192) << 8) + data[at] + 192, at + 1
            else:
                tag, size = (first >> 2) & 0x0F, 1 << (first & 0x03)
                length, at = int.from_bytes(data[at : at + size], "big"), at + size
            found.append((tag, data[at : at + length]))
            at += length
    except IndexError as error:
        raise Refused("is cut off") from error
    return found


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of the one OpenPGP key in an armoured text.

    Raises:
        Refused: there is no such key, or more than one.
    """
    text = key.decode("ascii", "replace").replace("\r\n", "\n")
    if text.count(ARMOR) != 1 or ARMOR_END not in text:
        raise Refused("holds no single OpenPGP key")
    body = text.split(ARMOR, 1)[1].split(ARMOR_END, 1)[0].split("\n\n", 1)[-1]
    lines = [line for line in body.split() if not line.startswith("=")]
    try:
        data = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("is damaged") from error
    keys = [packet for tag, packet in packets(data) if tag == PUBLIC_KEY_PACKET]
    if len(keys) != 1:
        raise Refused("holds no single OpenPGP key")
    packet = keys[0]
    version = packet[0] if packet else 0
    if version == 4:
        # The standard's name for the key, not a protection: so FIPS mode must let it pass.
        return (
            hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet, usedforsecurity=False).hexdigest().upper()
        )
    if version == 6:
        return hashlib.sha256(b"\x9b" + len(packet).to_bytes(4, "big") + packet).hexdigest().upper()
    raise Refused("has an unknown version")


def compact(value: str) -> str:
    """Return a fingerprint as people may write it in the form in which it can be compared."""
    return value.replace(" ", "").replace(":", "").upper().removeprefix("0X")


class Host:
    """Files of the repository on the host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Find out where the files are."""
        root = Path(module.params["root"])
        self.module = module
        self.repository = root / "etc/yum.repos.d" / f"{module.params['name']}.repo"
        self.key = root / "etc/pki/rpm-gpg" / f"RPM-GPG-KEY-{module.params['name']}"
        self.diff: list[dict[str, str]] = []

    def write(self, path: Path, content: bytes | None) -> None:
        """Write a file in one step, or remove it."""
        before = path.read_bytes() if path.exists() else None
        if before == content and (content is None or path.stat().st_mode & 0o777 == 0o644):
            return
        entry = {"before_header": str(path), "after_header": str(path)}
        self.diff.append({**entry, "before": (before or b"").decode(), "after": (content or b"").decode()})
        if self.module.check_mode:
            return
        if content is None:
            path.unlink()
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
        Path(new).replace(path)
        self.module.set_default_selinux_context(str(path), changed=False)


def definition(params: dict[str, Any], key: Path, *, enabled: bool) -> bytes:
    """Return the repository file."""
    return f"""# Ansible managed
[{params["name"]}]
name={params["label"]}
baseurl={params["base_url"]}
enabled={enabled:d}
gpgcheck=1
repo_gpgcheck={params["signed_metadata"]:d}
gpgkey=file://{key}
metadata_expire={params["metadata_expire"]}
skip_if_unavailable=0
""".encode()


def fetch(params: dict[str, Any], url: str) -> bytes:
    """Return what a URL serves.

    Raises:
        Refused: it serves nothing.
    """
    try:
        with open_url(url, timeout=params["timeout"]) as answer:
            return answer.read()
    except (OSError, HTTPException, ValueError) as error:
        raise Refused(
            f"{url} does not answer ({error}): start or fill the package mirror, or correct {params['variable']}. "
            "Nothing was changed."
        ) from error


def wanted_key(params: dict[str, Any], host: Host) -> bytes:
    """Return the key: the one on the host if it is still right, else the mirror's.

    Raises:
        Refused: the mirror's key is not the wanted one.
    """
    wanted = compact(params["key_fingerprint"])
    if host.key.exists():
        try:
            known = host.key.read_bytes()
            if fingerprint(known) == wanted or not wanted:
                return known
        except Refused:
            pass
    url = params["key_url"]
    key = fetch(params, url)
    try:
        found = fingerprint(key)
    except Refused as error:
        raise Refused(
            f"{url} {error}: put the public key of the package mirror there, or correct {params['variable']}. "
            "Nothing was changed."
        ) from error
    if wanted and found != wanted:
        raise Refused(
            f"The key at {url} has the fingerprint {found}, not {wanted}: ask the mirror's owner which is right, then "
            f"correct {params['fingerprint_variable']} or the key on the mirror. Nothing was changed."
        )
    return key


def prove(module: AnsibleModule, key: bytes) -> None:
    """Load the signed metadata with dnf, from files beside the real ones.

    Raises:
        Refused: dnf does not accept the repository.
    """
    params = module.params
    fetch(params, f"{params['base_url'].rstrip('/')}/repodata/repomd.xml")
    if module.check_mode:
        return
    with tempfile.TemporaryDirectory() as folder:
        key_file = Path(folder) / "key"
        key_file.write_bytes(key)
        (Path(folder) / "proof.repo").write_bytes(definition(params, key_file, enabled=True))
        options = (f"reposdir={folder}", f"cachedir={folder}/cache", "retries=1", f"timeout={params['timeout']}")
        command = ["dnf", "--quiet", "--assumeyes", *(f"--setopt={option}" for option in options), "makecache"]
        code, output, errors = module.run_command(command, environ_update={"LC_ALL": "C.UTF-8"})
    if code:
        reason = " ".join((errors or output).split()[-40:])
        raise Refused(
            f"dnf does not accept the package mirror at {params['base_url']} ({reason}): publish its metadata again, "
            f"signed with the key {fingerprint(key)}, or correct {params['variable']}. Nothing was changed."
        )


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work of one module run and return its result."""
    params = module.params
    host = Host(module)
    key, repository = None, None
    if params["state"] == "present":
        key = wanted_key(params, host)
        repository = definition(params, host.key, enabled=params["enabled"])
        known = host.key.exists() and host.key.read_bytes() == key
        if not known or not host.repository.exists() or host.repository.read_bytes() != repository:
            prove(module, key)
    host.write(host.key, key)
    host.write(host.repository, repository)
    return {
        "changed": bool(host.diff),
        "diff": host.diff,
        "repository": params["name"],
        "key_fingerprint": fingerprint(key) if key else "",
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "name": {"type": "str", "required": True},
            "base_url": {"type": "str", "default": ""},
            "key_url": {"type": "str", "default": "", "no_log": False},
            "key_fingerprint": {"type": "str", "default": "", "no_log": False},
            "fingerprint_variable": {
                "type": "str",
                "default": "package_source_mirror_key_fingerprint",
                "no_log": False,
            },
            "label": {"type": "str", "default": "Bank platform packages"},
            "enabled": {"type": "bool", "default": True},
            "signed_metadata": {"type": "bool", "default": True},
            "metadata_expire": {"type": "str", "default": "1h"},
            "variable": {"type": "str", "default": "package_mirror_url"},
            "timeout": {"type": "int", "default": 15},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**run(module))
    except Refused as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
