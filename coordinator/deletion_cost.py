"""Tells Kubernetes which worker's pod is the cheapest to lose: the one with the fewest leases.

A deployment that is scaled in takes pods of the lowest `pod-deletion-cost` first, and any pod
where none has one: 40 forced moves of streams in a simulated hour, against none.  It is a hint: a
pod that is not told about, or too late, hands its units over like any other.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog

from coordinator.leader import Leadership
from warp.errors import ConfigError, LedgerUnavailable
from warp.interfaces import LeaseStore
from warp.model import WorkerState

log = structlog.get_logger(__name__)

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
EVERY: Final = 15.0  # seconds: each change is a write to the cluster's store
TIMEOUT: Final = 5.0  # seconds

Connect = Callable[[], http.client.HTTPConnection]


def costs(workers: Iterable[WorkerState]) -> dict[str, int]:
    """Leases held by each host; a pod's host name is its own.  Pure."""
    held: Counter[str] = Counter()
    for worker in workers:
        held[worker.id.split(":")[0]] += worker.held
    return dict(held)


class Pods:
    """The pods of our namespace, as far as we may change them."""

    def __init__(self, connect: Connect, account: Path) -> None:
        self._connect = connect
        self._account = account

    @classmethod
    def of_this_cluster(
        cls, environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT
    ) -> Pods:
        host = environment.get("KUBERNETES_SERVICE_HOST")
        if not host or not (account / "token").exists():
            raise ConfigError(
                "expected to run in a pod with the token of a service account, found none in "
                f"{account}; leave the flag out, or set automountServiceAccountToken",
                place="--pod-deletion-cost",
            )
        port = int(environment.get("KUBERNETES_SERVICE_PORT_HTTPS", "443"))
        trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
        return cls(
            lambda: http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=trust),
            account,
        )

    def annotate(self, pod: str, cost: int) -> None:
        """Raises OSError or http.client.HTTPException, and PermissionError where it is refused.

        A host that is no pod, or is gone, is no error.
        """
        # Read each time: tokens are replaced every hour.
        token = (self._account / "token").read_text().strip()
        namespace = (self._account / "namespace").read_text().strip()
        patch = {"metadata": {"annotations": {ANNOTATION: str(cost)}}}
        with contextlib.closing(self._connect()) as connection:
            connection.request(
                "PATCH",
                f"/api/v1/namespaces/{quote(namespace, '')}/pods/{quote(pod, '')}",
                body=json.dumps(patch),
                headers={
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/merge-patch+json",
                },
            )
            answer = connection.getresponse()
            answer.read()
        if answer.status in (401, 403):
            raise PermissionError(f"expected the right to patch pods, found {answer.status}")
        if answer.status not in (200, 404):
            raise http.client.HTTPException(f"expected 200, found {answer.status} {answer.reason}")


class DeletionCosts:
    """Keeps the annotations as the ledger has it, while this coordinator leads."""

    def __init__(self, ledger: LeaseStore, leadership: Leadership, pods: Pods) -> None:
        self._ledger = ledger
        self._leadership = leadership
        self._pods = pods
        self._told: dict[str, int] = {}
        self._complained = False

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(EVERY):
            if self._leadership.leading:
                self.tell()
            else:
                self._told.clear()  # another one may tell them differently

    def tell(self) -> None:
        """Tell what has changed.  Nothing that fails here is anybody's harm: it is tried again."""
        try:
            now = costs(self._ledger.workers())
            for pod, cost in now.items():
                if self._told.get(pod) != cost:
                    self._pods.annotate(pod, cost)
                    self._told[pod] = cost
            self._told = {pod: cost for pod, cost in self._told.items() if pod in now}
        except LedgerUnavailable:
            return  # told by everybody else
        except (OSError, http.client.HTTPException) as error:
            if not self._complained:
                log.warning("pod_not_annotated", error=str(error), action="tried again")
            self._complained = True
        else:
            self._complained = False
