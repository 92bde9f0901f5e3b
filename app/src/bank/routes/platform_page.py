"""How the platform is, for the staff that looks after it: a page that loads itself again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, make_response, render_template, request, session, url_for
from flask_babel import gettext

from bank.monitoring.prometheus import Trouble
from bank.monitoring.status import FULL, SCARCE_BUDGET
from bank.permissions import Permission, requires
from bank.resources import resources
from bank.sessions import BankSession

if TYPE_CHECKING:
    from flask import Response

    from bank.monitoring.prometheus import Failure

blueprint = Blueprint("platform_page", __name__, url_prefix="/staff")
REFRESH_SECONDS = 30
# The first figures are there a moment after they were asked for.
SOON_SECONDS = 3
ALERTS_SHOWN = 100


@blueprint.get("/platform")
@requires(Permission.PLATFORM_READ)
def overview() -> Response:
    """Show hosts, services, alerts, backups and objectives, or what is wrong with who should know them.

    The browser loads the page again by itself unless the reader stops it. That does not count as use of the session,
    which would never end otherwise.
    """
    if "auto" in request.args and isinstance(session, BankSession):
        session.leave_idle()
    watch = resources().watch
    seen = watch.look() if watch.is_on else None
    refreshes = watch.is_on and request.args.get("refresh") != "off"
    page = render_template(
        "staff/platform.html",
        is_on=watch.is_on,
        seen=seen,
        urls=watch.urls,
        explain=_explain,
        refreshes=refreshes,
        seconds=REFRESH_SECONDS,
        alerts_shown=ALERTS_SHOWN,
        full=FULL,
        scarce=SCARCE_BUDGET,
    )
    answer = make_response(page)
    if refreshes:
        # A header does what a script would do, which this site does not allow.
        answer.headers["Refresh"] = (
            f"{REFRESH_SECONDS if seen else SOON_SECONDS}; url={url_for('platform_page.overview', auto=1)}"
        )
    return answer


def _explain(failure: Failure) -> tuple[str, str]:
    """Return what is wrong with a server, and what to do."""
    user = resources().settings.prometheus.user
    url, detail = failure.url, failure.detail
    return {
        Trouble.UNREACHABLE: (
            gettext("%(url)s cannot be reached: %(detail)s.", url=url, detail=detail),
            gettext("See that prometheus.service runs there, and that its firewall lets this host in."),
        ),
        Trouble.UNTRUSTED: (
            gettext("%(url)s does not prove who it is: %(detail)s.", url=url, detail=detail),
            gettext("See that ca_certificate in section prometheus of bank.toml is the authority of its certificate."),
        ),
        Trouble.REFUSED: (
            gettext("%(url)s refuses the user %(user)s or the password.", url=url, user=user or "-"),
            gettext("Run site.yml, so that both sides have the same vault_bank_prometheus_password."),
        ),
        Trouble.SLOW: (
            gettext("%(url)s does not answer in time.", url=url),
            gettext("See how busy that host is, and whether a firewall swallows the packets."),
        ),
        Trouble.STARTING: (
            gettext("%(url)s is not ready.", url=url),
            gettext(
                "It is starting and reads its data. Wait some minutes, then look at the log of prometheus.service."
            ),
        ),
        Trouble.STRANGE: (
            gettext("%(url)s answers, but not as Prometheus does: %(detail)s.", url=url, detail=detail),
            gettext("See that urls in section prometheus of bank.toml names Prometheus."),
        ),
    }[failure.trouble]
