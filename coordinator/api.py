"""What a coordinator answers over HTTP: `/metrics`, `/healthz`, `/readyz` and `/status`.

The page for people, at `/`, is in `coordinator.web`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coordinator.autoscale import Load, demand, desired_workers
from coordinator.leader import Leadership
from coordinator.reconciler import Reconciler
from coordinator.status import StatusReader
from warp.config import Settings
from warp.errors import LedgerUnavailable
from warp.interfaces import LeaseStore

STUCK_AFTER = 120.0  # seconds without a finished round while leading


def status_page(
    reader: StatusReader, ledger: LeaseStore, settings: Settings, leadership: Leadership
) -> Callable[[], dict[str, Any]]:
    """`GET /status`: the fleet, and how many workers it asks for."""

    def page() -> dict[str, Any]:
        coordination = settings.coordination
        load = Load.of(ledger.units())
        wanted = demand(load, drain_target=coordination.drain_target)
        slots = coordination.slots * coordination.processes
        return {
            **reader.read(),
            **about(leadership)(),
            "scaling": {"demand": wanted, "workers": desired_workers(wanted, slots=slots)},
        }

    return page


def about(leadership: Leadership) -> Callable[[], dict[str, Any]]:
    """Which coordinator it is that answers."""
    return lambda: {"coordinator": {"id": leadership.id, "leading": leadership.leading}}


def readiness(ledger: LeaseStore) -> Callable[[], Mapping[str, Any] | None]:
    """Ready, leading or standing by, while the ledger answers."""

    def ready() -> Mapping[str, Any] | None:
        try:
            ledger.incarnation()
        except LedgerUnavailable as error:
            return {"ledger": str(error)}
        return None

    return ready


def health(reconciler: Reconciler) -> Callable[[], Mapping[str, Any] | None]:
    """Unhealthy where a leader's rounds neither succeed nor fail any more."""

    def healthy() -> Mapping[str, Any] | None:
        silent_for = reconciler.silent_for()
        return {"silent_for": round(silent_for, 1)} if silent_for > STUCK_AFTER else None

    return healthy
