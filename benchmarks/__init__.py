"""Measured figures of the platform, each beside its reference."""
