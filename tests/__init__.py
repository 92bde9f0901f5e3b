"""Tests of the platform and the runner that calls them all."""
