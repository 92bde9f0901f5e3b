"""The list of beneficiaries."""

from __future__ import annotations

import uuid  # noqa: TC003  (the router's converter gives this type)

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from bank.permissions import Permission, requires
from bank.resources import resources
from bank.routes import step_up
from bank.routes.forms import BeneficiaryForm
from bank.services import beneficiaries

blueprint = Blueprint("beneficiaries", __name__)
Page = str | Response | tuple[str, int]


def _saved() -> list[beneficiaries.Saved]:
    return beneficiaries.list_of(resources().engine, current_user.id)


def _page(form: BeneficiaryForm) -> str:
    return render_template("beneficiaries.html", form=form, saved=_saved(), proof=step_up.own_proof())


def _is_proved(form: BeneficiaryForm) -> bool:
    """Tell whether the form holds the proof for its beneficiary; one that is there already changes nothing."""
    if any(item.number == form.number.data for item in _saved()):
        return True
    proof = step_up.own_proof()
    return step_up.is_right(proof, step_up.field_of(form, proof), gettext("Prove that it is you."))


@blueprint.get("/beneficiaries")
@requires(Permission.OWN_TRANSFERS)
def overview() -> Page:
    """Show the list, and the form for a new one."""
    return _page(BeneficiaryForm())


@blueprint.post("/beneficiaries")
@requires(Permission.OWN_TRANSFERS)
def add() -> Page:
    """Add one, which needs a proof, since orders to it need less later; sending the form twice adds it once."""
    form = BeneficiaryForm()
    if not form.validate():
        return _page(form), 400
    if not _is_proved(form):
        return _page(form), 403
    name = form.name.data.strip()
    try:
        beneficiaries.add(resources().engine, current_user.id, name, form.number.data)
    except beneficiaries.UnknownAccountError:
        form.number.errors = [gettext("No account of somebody else has this IBAN.")]
        return _page(form), 422
    except beneficiaries.TooManyError:
        form.form_errors = [gettext("Your list is full. Remove a beneficiary first.")]
        return _page(form), 422
    flash(gettext("%(name)s is in your list.", name=name), "success")
    return redirect(url_for("beneficiaries.overview"), 303)


@blueprint.post("/beneficiaries/<uuid:beneficiary_id>/remove")
@requires(Permission.OWN_TRANSFERS)
def remove(beneficiary_id: uuid.UUID) -> Page:
    """Remove one; one of somebody else does not exist."""
    if not beneficiaries.remove(resources().engine, current_user.id, beneficiary_id):
        abort(404)
    flash(gettext("The beneficiary was removed."), "success")
    return redirect(url_for("beneficiaries.overview"), 303)
