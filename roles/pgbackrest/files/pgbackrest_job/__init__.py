"""Backs PostgreSQL up with pgBackRest, tries the restore, and tells Prometheus what came of it."""
