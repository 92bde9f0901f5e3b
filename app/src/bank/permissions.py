"""Who may do what: the one place where roles, permissions and routes meet.

Every view says what it needs with ``@requires(...)`` or ``@public``, written under the route's own decorator.
``create_app`` refuses to start when one says neither, and every request is checked before its view runs, so a new
route is closed until somebody decides otherwise.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flask import Flask

View = TypeVar("View", bound="Callable[..., object]")
_MARK = "bank_permission"


class Role(StrEnum):
    """What a person is to the bank; the values are stored."""

    CUSTOMER = "customer"
    TELLER = "teller"
    SUPERVISOR = "supervisor"
    AUDITOR = "auditor"
    ADMIN = "admin"

    @property
    def is_staff(self) -> bool:
        """Whether the person works for the bank."""
        return self is not Role.CUSTOMER


class Permission(StrEnum):
    """Something that a route does; ``own`` means objects of the person who asks, which the route still checks."""

    OWN_SECURITY = "own-security"
    """Password, second factor and sessions of oneself."""
    OWN_ACCOUNTS = "own-accounts"
    """Reading one's accounts, history and statements."""
    OWN_TRANSFERS = "own-transfers"
    """Moving one's money, and what prepares it: beneficiaries, standing orders."""
    STAFF_HOME = "staff-home"
    """The staff's start page."""
    CUSTOMERS_READ = "customers-read"
    """Finding customers, and reading their accounts and history."""
    CASH_POST = "cash-post"
    """Booking deposits and withdrawals at the counter."""
    REVERSAL_ASK = "reversal-ask"
    """Asking for the reversal of an entry."""
    APPROVALS_READ = "approvals-read"
    """Reading what waits for a second pair of eyes."""
    APPROVALS_DECIDE = "approvals-decide"
    """Approving or refusing what somebody else asked for."""
    SIGN_UPS_DECIDE = "sign-ups-decide"
    """Admitting new customers."""
    ACCOUNTS_FREEZE = "accounts-freeze"
    """Freezing and releasing accounts."""
    USERS_MANAGE = "users-manage"
    """Disabling people, changing roles, removing a lost second factor."""
    ROLES_DECIDE = "roles-decide"
    """Agreeing to a change of role that somebody else asked for."""
    AUDIT_READ = "audit-read"
    """Reading the audit trail."""
    LEDGER_READ = "ledger-read"
    """Reading the whole journal and its reconciliation."""
    FRAUD_READ = "fraud-read"
    """Reading which orders looked like fraud."""
    ALERTS_READ = "alerts-read"
    """Reading alerts that monitoring sent."""
    PLATFORM_READ = "platform-read"
    """Seeing how hosts and services of the platform are."""


P = Permission
GRANTS: dict[Role, frozenset[Permission]] = {
    Role.CUSTOMER: frozenset({P.OWN_SECURITY, P.OWN_ACCOUNTS, P.OWN_TRANSFERS}),
    Role.TELLER: frozenset(
        {P.OWN_SECURITY, P.STAFF_HOME, P.CUSTOMERS_READ, P.CASH_POST, P.REVERSAL_ASK, P.APPROVALS_READ}
    ),
    Role.SUPERVISOR: frozenset(
        {P.OWN_SECURITY, P.STAFF_HOME, P.CUSTOMERS_READ, P.REVERSAL_ASK, P.APPROVALS_READ, P.APPROVALS_DECIDE,
         P.SIGN_UPS_DECIDE, P.ROLES_DECIDE, P.FRAUD_READ, P.ALERTS_READ, P.PLATFORM_READ}
    ),
    Role.AUDITOR: frozenset(
        {P.OWN_SECURITY, P.STAFF_HOME, P.CUSTOMERS_READ, P.APPROVALS_READ, P.AUDIT_READ, P.LEDGER_READ, P.FRAUD_READ,
         P.ALERTS_READ, P.PLATFORM_READ}
    ),
    Role.ADMIN: frozenset(
        {P.OWN_SECURITY, P.STAFF_HOME, P.CUSTOMERS_READ, P.SIGN_UPS_DECIDE, P.ACCOUNTS_FREEZE, P.USERS_MANAGE,
         P.ROLES_DECIDE, P.ALERTS_READ, P.PLATFORM_READ}
    ),
}  # fmt: skip


class UndeclaredRouteError(RuntimeError):
    """A route says neither which permission it needs nor that it is public."""

    def __init__(self, endpoints: Iterable[str]) -> None:
        super().__init__(f"routes without @requires or @public: {', '.join(sorted(endpoints))}")


def of_role(role: str) -> frozenset[Permission]:
    """Return what a role may do; a role that this release does not know may do nothing."""
    try:
        return GRANTS[Role(role)]
    except ValueError:
        return frozenset()


def requires(permission: Permission) -> Callable[[View], View]:
    """Declare that a view is for people with this permission."""

    def declare(view: View) -> View:
        setattr(view, _MARK, permission)
        return view

    return declare


def public(view: View) -> View:
    """Declare that a view is for everybody, also without a log-in."""
    setattr(view, _MARK, None)
    return view


def of_endpoint(app: Flask, endpoint: str) -> Permission | None:
    """Return what a route needs; None means that it is public.

    Raises:
        UndeclaredRouteError: It does not say.
    """
    view = app.view_functions[endpoint]
    if not hasattr(view, _MARK):
        raise UndeclaredRouteError([endpoint])
    found: Permission | None = getattr(view, _MARK)
    return found


def refuse_undeclared(app: Flask) -> None:
    """Check the whole url map.

    Raises:
        UndeclaredRouteError: It names every route that does not say what it needs.
    """
    if silent := [name for name, view in app.view_functions.items() if not hasattr(view, _MARK)]:
        raise UndeclaredRouteError(silent)
