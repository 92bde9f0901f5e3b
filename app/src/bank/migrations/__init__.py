"""Schema changes, applied by ``bank migrate``.

Each revision leaves the schema usable by the release before it (add first, remove one release later), so that
instances of both releases can serve while a deployment rolls.
"""
