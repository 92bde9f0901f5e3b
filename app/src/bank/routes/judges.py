"""What a request tells whoever judges its order: whether it came from a page or a program, and what is new about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import request, session

from bank.api import bearer
from bank.resources import resources
from bank.services.screening import Circumstances, Screening, network_of

if TYPE_CHECKING:
    from bank.services.screening import Novelty

NOVELTY_KEY = "novelty"


def seen(novelty: Novelty) -> dict[str, Any]:
    """Return what a session remembers about its log-in, which is this request."""
    return {"device": novelty.device, "place": novelty.place, "network": _network()}


def of_session() -> Screening:
    """Return the judge of an order from a page."""
    known = session.get(NOVELTY_KEY, {})
    moved = known.get("network", _network()) != _network()
    return Screening(
        resources().settings.fraud,
        Circumstances(is_new_device=known.get("device", False), is_new_place=known.get("place", False) or moved),
    )


def of_token() -> Screening:
    """Return the judge of an order from a program; programs may ask from several addresses at once."""
    return Screening(
        resources().settings.fraud, Circumstances(by_program=True, is_new_place=bearer.token().is_new_place)
    )


def _network() -> str:
    return network_of(request.remote_addr or "")
