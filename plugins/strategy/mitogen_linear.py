"""Ansible's linear strategy on Mitogen's connections: one Python process for each host, kept over the whole run.

Ansible's own strategy starts a Python for every task; benchmarks/README.md has the figures. ANSIBLE_STRATEGY=linear
chooses Ansible's own for one run.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ansible.errors import AnsibleError
from ansible.plugins.loader import filter_loader, test_loader

try:
    import ansible_mitogen.affinity
    import ansible_mitogen.loaders
    import ansible_mitogen.module_finder
    import ansible_mitogen.strategy
except ImportError as error:
    raise AnsibleError(
        f"{error}: install what the project needs (pip install -r requirements.txt), or set ANSIBLE_STRATEGY=linear."
    ) from None

# On fewer than four processors Mitogen would leave one idle and put the whole run on the others.
ansible_mitogen.affinity.policy = ansible_mitogen.affinity.Policy()
# To know what a module needs, Mitogen compiles all helpers of each module: the same files, module after module.
ansible_mitogen.module_finder.compile = functools.cache(compile)

if TYPE_CHECKING:
    from ansible.inventory.host import Host
    from ansible.playbook.play_context import PlayContext
    from ansible.playbook.task import Task

Linear = ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True)


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, Linear):
    """Linear, task by task over all hosts, as playbooks and roles here expect it."""

    def _queue_task(self, host: Host, task: Task, task_vars: dict[str, object], play_context: PlayContext) -> None:
        """Start a task on one host, in a process that is a copy of this one."""
        # Loaded here once, or again in the copy for every task on every host.
        for loader in (filter_loader, test_loader):
            next(loader.all(), None)
        super()._queue_task(host, task, task_vars, play_context)
