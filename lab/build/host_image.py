"""Build the root file system of a lab host: Debian packages laid out to behave like an EL9 host.

Runs on Debian as root with mmdebstrap installed, with the standard library only.
"""

import argparse
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES_FILE = HERE / "image" / "packages.txt"
OVERLAY = HERE / "image" / "root"

# Roles must use dnf and rpm: nothing of Debian's package management stays in the image.
REMOVED = (
    "/usr/bin/apt* /usr/bin/dpkg* /usr/sbin/dpkg* /usr/lib/apt /usr/lib/dpkg /etc/apt /etc/dpkg "
    "/var/lib/apt /var/lib/dpkg /var/cache/apt /var/log/apt /var/log/*.log /usr/share/doc "
    "/usr/share/man /usr/share/locale "
    "/etc/debian_version /etc/os-release /etc/cron.daily/apt-compat /etc/cron.daily/dpkg /etc/logrotate.d/apt "
    "/etc/logrotate.d/dpkg /etc/logrotate.d/alternatives /etc/ssh/ssh_host_*"
)
MASKED_UNITS = (
    "getty.target console-getty.service systemd-udevd.service systemd-logind.service "
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer systemd-timesyncd.service"
)


def packages() -> list[str]:
    """Return the package names of the image, without comments."""
    lines = PACKAGES_FILE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def build(output: Path) -> None:
    """Write the root file system as a tar archive to ``output``.

    Raises:
        subprocess.CalledProcessError: mmdebstrap failed; its own messages are on standard error.
    """
    hooks = [
        f'chroot "$1" systemctl mask {MASKED_UNITS}',
        'chroot "$1" systemctl disable firewalld.service',
        f'chroot "$1" sh -c "rm -rf {REMOVED}"',
        # EL gives 26 to postgres; Debian gives it to a group that nothing here uses.
        'chroot "$1" groupdel tape',
        # EL's shell is bash; scripts must not come to depend on Debian's dash, nor fail on it.
        'chroot "$1" ln -sf bash /usr/bin/sh',
        f"copy-in {OVERLAY}/etc {OVERLAY}/usr /",
        'chroot "$1" systemctl enable bank-lab-own-network-files.service',
        'chroot "$1" sh -c "mkdir -p /etc/yum.repos.d /etc/pki/rpm-gpg /etc/pki/tls/certs && rpm --initdb"',
        'chroot "$1" ln -sf /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt',
        'rm -f "$1/etc/machine-id" "$1/etc/hostname" && touch "$1/etc/machine-id"',
    ]
    subprocess.run(
        [
            "mmdebstrap",
            "--variant=minbase",
            "--quiet",
            # Its clean-up expects apt to be there still; the hooks above leave nothing to clean.
            "--skip=cleanup",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Retries "3"',
            f"--include={','.join(packages())}",
            *(f"--customize-hook={hook}" for hook in hooks),
            "bookworm",
            str(output),
        ],
        check=True,
    )


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    build(parser.parse_args().output)


if __name__ == "__main__":
    main()
