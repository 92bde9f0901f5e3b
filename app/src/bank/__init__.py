"""The bank application: accounts, a double-entry ledger, and a web front for customers."""

__version__ = "0.5.0"
