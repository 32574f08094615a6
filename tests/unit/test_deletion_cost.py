"""Kubernetes is told what each worker's pod is worth, over TLS and with nothing but its token."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.deletion_cost import ANNOTATION, DeletionCosts, Pods, costs
from coordinator.leader import Leadership
from warp.errors import ConfigError
from warp.leases.memory import MemoryLeaseStore
from warp.model import WorkerState, WorkUnit
from warp.own_process import wait_until


@dataclass
class Cluster:
    """An API server as far as pods are concerned."""

    account: Path
    port: int = 0
    status: int = 200
    asked: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def pods(self) -> Pods:
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.port),
        }
        return Pods.of_this_cluster(environment, self.account)

    def told(self) -> list[tuple[str, str]]:
        return [
            (path.rpartition("/")[2], patch["metadata"]["annotations"][ANNOTATION])
            for path, _, patch in self.asked
        ]


def certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return directory / "ca.crt", directory / "key"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    (tmp_path / "token").write_text("first-token\n")
    (tmp_path / "namespace").write_text("warp")

    class Request(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            cluster.asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(cluster.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing to say."""

    crt, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        cluster.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield cluster
        server.shutdown()
        thread.join()


@pytest.fixture
def ledger() -> MemoryLeaseStore:
    ledger = MemoryLeaseStore()
    ledger.ensure([WorkUnit.stream(name) for name in "abcd"])
    ledger.claim("pod-1:7:x", 2, ttl=60.0, slots=4)
    ledger.claim("pod-1:8:y", 1, ttl=60.0, slots=4)
    ledger.claim("pod-2:7:z", 0, ttl=60.0, slots=4)
    return ledger


def test_a_pod_costs_what_its_processes_hold_together() -> None:
    workers = [WorkerState(id, 4, n, 9.0) for id, n in (("a:1:x", 2), ("a:2:y", 1), ("b:1:z", 0))]
    assert costs(workers) == {"a": 3, "b": 0}


def test_what_has_changed_is_told_once(cluster: Cluster, ledger: MemoryLeaseStore) -> None:
    telling = DeletionCosts(ledger, Leadership(ledger, "c"), cluster.pods())
    telling.tell()
    telling.tell()
    assert sorted(cluster.told()) == sorted((p, str(n)) for p, n in costs(ledger.workers()).items())
    path, authorization, _ = cluster.asked[0]
    assert path == "/api/v1/namespaces/warp/pods/pod-1"
    assert authorization == "Bearer first-token"
    (cluster.account / "token").write_text("second-token")
    [lease] = ledger.claim("pod-2:7:z", 1, ttl=60.0, slots=4)
    telling.tell()
    assert cluster.asked[-1][1] == "Bearer second-token"
    ledger.release(lease)
    telling.tell()
    assert cluster.told()[-2:] == [("pod-2", "1"), ("pod-2", "0")]


def test_a_worker_that_is_no_pod_is_asked_about_once(
    cluster: Cluster, ledger: MemoryLeaseStore
) -> None:
    cluster.status = 404
    telling = DeletionCosts(ledger, Leadership(ledger, "c"), cluster.pods())
    telling.tell()
    telling.tell()
    assert len(cluster.asked) == len(costs(ledger.workers()))


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_is_no_harm_and_tried_again(
    cluster: Cluster, ledger: MemoryLeaseStore, status: int
) -> None:
    cluster.status = status
    telling = DeletionCosts(ledger, Leadership(ledger, "c"), cluster.pods())
    telling.tell()
    cluster.status = 200
    telling.tell()
    assert ("pod-1", "3") in cluster.told()[1:]


def test_a_server_that_somebody_else_vouches_for_gets_no_token(
    cluster: Cluster, ledger: MemoryLeaseStore, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    certificate(other)
    (other / "token").write_text("precious")
    (other / "namespace").write_text("warp")
    cluster.account = other
    DeletionCosts(ledger, Leadership(ledger, "c"), cluster.pods()).tell()
    assert cluster.asked == []


def test_only_who_leads_tells(
    cluster: Cluster, ledger: MemoryLeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.deletion_cost.EVERY", 0.01)
    leadership = Leadership(MemoryLeaseStore(), "c")
    telling, stop = DeletionCosts(ledger, leadership, cluster.pods()), threading.Event()
    thread = threading.Thread(target=telling.run, args=(stop,))
    thread.start()
    try:
        assert not wait_until(lambda: bool(cluster.asked), 0.1)
        leadership.start()
        assert wait_until(lambda: ("pod-1", "3") in cluster.told(), 30.0)
    finally:
        stop.set()
        thread.join()
        leadership.stop()


def test_outside_a_cluster_the_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pod with the token"):
        Pods.of_this_cluster({}, tmp_path)
