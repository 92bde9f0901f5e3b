"""Documentation of how modules reach a product by its REST API."""

from __future__ import annotations


class ModuleDocFragment:
    """The option that all of them take."""

    DOCUMENTATION = r"""
options:
  access:
    description: How the servers are reached.
    type: dict
    required: true
    suboptions:
      urls:
        description: Addresses; the first that answers is used.
        type: list
        elements: str
        required: true
      ca_path:
        description: Certificate authority of their certificates.
        type: path
        required: true
      user:
        description: User to log in as.
        type: str
        required: true
      password:
        description: Password of that user.
        type: str
        required: true
"""
