"""A way to a server that is slow, breaks off, refuses, or stands still."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

BLOCK = 2**14  # bytes forwarded at a time
FAULTS = ("refused", "busy", "cut", "cut", *[""] * 6)  # of ten connections
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass
class Network:
    """How connections fare; what holds is looked up at each block of bytes."""

    port: int = 0  # where clients reach the server
    breaks: bool = False  # of ten connections four fail: at once, with 503, or after so many bytes
    stands_still: bool = False  # no byte passes, and nothing is closed
    bytes_per_s: float = float("inf")  # from clients to the server
    sent: int = 0  # bytes from clients that have passed
    faults: Counter[str] = field(default_factory=Counter)
    chance: random.Random = field(default_factory=lambda: random.Random(0))


@contextmanager
def weak_network(server: int) -> Iterator[Network]:
    """The way to a port of this machine."""
    network = Network()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        network.port = listening.getsockname()[1]

        def listen() -> None:
            with suppress(OSError):  # it is closed at the end
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=_connect, args=(network, client, server), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield network
        listening.shutdown(socket.SHUT_RDWR)


def _connect(network: Network, client: socket.socket, port: int) -> None:
    fault = network.chance.choice(FAULTS) if network.breaks else ""
    network.faults[fault or "none"] += 1
    if fault == "refused":
        client.close()
    elif fault == "busy":
        with suppress(OSError):
            client.recv(BLOCK)
            head = f"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: {len(BUSY)}\r\n\r\n"
            client.sendall(head.encode() + BUSY)
        client.close()
    else:
        most = int(10 ** network.chance.uniform(2, 6)) if fault else 0
        server = socket.create_connection(("127.0.0.1", port))
        for one, other, to_server in ((client, server, True), (server, client, False)):
            threading.Thread(target=_pump, args=(network, one, other, to_server, most), daemon=True).start()


def _pump(network: Network, one: socket.socket, other: socket.socket, to_server: bool, most: int) -> None:
    """Forward bytes until one end is closed, or both are after `most` bytes (0: never)."""
    passed = 0
    with suppress(OSError):
        while block := one.recv(BLOCK):
            while network.stands_still:
                time.sleep(0.05)
            if most and passed + len(block) > most:
                other.sendall(block[: most - passed])
                break
            other.sendall(block)
            passed += len(block)
            if to_server:
                network.sent += len(block)
                time.sleep(len(block) / network.bytes_per_s)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
