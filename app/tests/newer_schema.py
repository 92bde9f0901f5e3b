"""A plugin for the tests of an earlier release: they get the schema of the release that NEWER_SOURCE names."""

from __future__ import annotations

import os
import subprocess
import sys

from bank.services import schema

SOURCE = os.environ["NEWER_SOURCE"]
PROGRAM = """
import os
from sqlalchemy import create_engine
from bank.services import schema
print("schema", schema.migrate(create_engine(os.environ["DATABASE_URL"]), os.environ["APPLICATION_ROLE"])[1])
"""


def migrate(engine, application_role):
    url = engine.url.render_as_string(hide_password=False)
    environment = {**os.environ, "PYTHONPATH": SOURCE, "DATABASE_URL": url, "APPLICATION_ROLE": application_role}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    # What the earlier release's own migration answers.
    return None, schema.known_revisions()[0]


schema.migrate = migrate
