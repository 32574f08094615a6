"""The wires of the chaos runs delay, hold up and cut what passes; addresses lead through them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from wires import State, Wire


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says everything again."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(4096):
                client.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def wire(echo: int) -> Iterator[Wire]:
    with Wire("server", echo, delay=0.2) as made:
        yield made


def speak(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=30)


def said_again(client: socket.socket, word: bytes) -> bytes:
    client.sendall(word)
    return client.recv(100)


def lets_nobody_in(wire: Wire) -> bool:
    """A connection that is reset while it is made has no socket to read from."""
    try:
        client = speak(wire)
    except ConnectionError:
        return True
    with client:
        return is_broken(client)


def is_broken(client: socket.socket) -> bool:
    with contextlib.suppress(ConnectionError):
        client.sendall(b"hello")
        return client.recv(100) == b""
    return True


def test_what_is_said_passes_both_ways(wire: Wire) -> None:
    with speak(wire) as client:
        assert said_again(client, b"hello") == b"hello"


def test_a_slow_wire_delays_each_way(wire: Wire) -> None:
    wire.become(State.SLOW)
    with speak(wire) as client:
        began = time.monotonic()
        assert said_again(client, b"hello") == b"hello"
        assert time.monotonic() - began >= 0.4


def test_a_held_wire_says_nothing_until_it_is_mended(wire: Wire) -> None:
    with speak(wire) as client:
        said_again(client, b"hello")
        wire.become(State.HELD)
        client.sendall(b"held")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(100)
        client.settimeout(30)
        wire.mend()
        assert client.recv(100) == b"held"


def test_a_cut_wire_breaks_what_is_open_and_lets_nobody_in(wire: Wire) -> None:
    with speak(wire) as client:
        said_again(client, b"hello")
        wire.become(State.CUT)
        assert is_broken(client)
    assert lets_nobody_in(wire)
    wire.mend()
    with speak(wire) as client:
        assert said_again(client, b"hello") == b"hello"


def test_addresses_lead_through_a_wire(wire: Wire, echo: int) -> None:
    for address in (
        f"redis://:pw@127.0.0.1:{echo}/0",
        f"user=u host=127.0.0.1 port={echo} dbname=t_{echo}",
        f"mysql://u:p@127.0.0.1:{echo}/",
    ):
        led = wire.through(address)
        assert led == address.replace(f":{echo}", f":{wire.port}").replace(
            f"port={echo}", f"port={wire.port}"
        )
        assert led != address
