"""The lab: the platform's hosts as systemd containers on one machine."""
