"""Pages and interfaces, one blueprint for each subject."""

from bank.routes import accounts, auth, operations, transfers

BLUEPRINTS = (operations.blueprint, auth.blueprint, accounts.blueprint, transfers.blueprint)
