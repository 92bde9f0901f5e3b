"""Pages and interfaces, one blueprint for each subject."""

from bank.routes import accounts, auth, languages, operations, security, transfers

BLUEPRINTS = (
    operations.blueprint,
    auth.blueprint,
    languages.blueprint,
    accounts.blueprint,
    transfers.blueprint,
    security.blueprint,
)
