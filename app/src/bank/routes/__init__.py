"""Pages and interfaces, one blueprint for each subject."""

from bank.routes import (
    accounts,
    alerts,
    api,
    auth,
    beneficiaries,
    languages,
    notifications,
    operations,
    security,
    transfers,
)

BLUEPRINTS = (
    operations.blueprint,
    auth.blueprint,
    languages.blueprint,
    accounts.blueprint,
    transfers.blueprint,
    beneficiaries.blueprint,
    notifications.blueprint,
    security.blueprint,
    api.blueprint,
    alerts.blueprint,
)
