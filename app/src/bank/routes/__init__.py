"""Pages and interfaces, one blueprint for each subject."""

from bank.routes import (
    accounts,
    alerts,
    api,
    audit,
    auth,
    beneficiaries,
    counter,
    decisions,
    languages,
    notifications,
    operations,
    security,
    staff,
    standing_orders,
    statements,
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
    standing_orders.blueprint,
    statements.blueprint,
    security.blueprint,
    api.blueprint,
    alerts.blueprint,
    staff.blueprint,
    counter.blueprint,
    decisions.blueprint,
    audit.blueprint,
)
