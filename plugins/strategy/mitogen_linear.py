"""Ansible's linear strategy on Mitogen's connections: one Python process for each host, kept over the whole run.

Ansible's own strategy starts a Python for every task; benchmarks/README.md has the figures. ANSIBLE_STRATEGY=linear
chooses Ansible's own for one run.
"""

from ansible.errors import AnsibleError

try:
    import ansible_mitogen.affinity
    import ansible_mitogen.loaders
    import ansible_mitogen.strategy
except ImportError as error:
    raise AnsibleError(
        f"{error}: install what the project needs (pip install -r requirements.txt), or set ANSIBLE_STRATEGY=linear."
    ) from None

# On fewer than four processors Mitogen would leave one idle and put the whole run on the others.
ansible_mitogen.affinity.policy = ansible_mitogen.affinity.Policy()

Linear = ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True)


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, Linear):
    """Linear, task by task over all hosts, as playbooks and roles here expect it."""
