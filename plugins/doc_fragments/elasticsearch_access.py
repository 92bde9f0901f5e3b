"""Documentation of how the modules of the role elasticsearch reach a node."""

from __future__ import annotations


class ModuleDocFragment:
    """The option that all of them take."""

    DOCUMENTATION = r"""
options:
  access:
    description: How the node is reached.
    type: dict
    required: true
    suboptions:
      url:
        description: Address of the node's HTTP interface.
        type: str
        required: true
      ca_path:
        description: Certificate authority of the nodes' certificates.
        type: path
        required: true
      user:
        description: User to log in as.
        type: str
        default: elastic
      password:
        description: Password of that user.
        type: str
        required: true
"""
