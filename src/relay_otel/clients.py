"""An ASGI scope in; who asks, whether from a private network, and whether too often, out."""

from __future__ import annotations

import ipaddress
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
                    "::1/128", "fc00::/7", "fe80::/10")
)  # fmt: skip
"""Loopback, RFC 1918, link-local and IPv6 unique local: not all that Python's ``is_private`` takes for private."""

NOBODY = "a peer without an address"
"""Whoever comes by a unix socket."""

CLIENTS_KEPT = 10_000
"""Of an ``Allowance``: about 2.5 MB."""


def is_private(peer: Sequence[Any] | None) -> bool:
    """Whether a scope's ``client`` is on a private network. One without an IP address is: a unix socket, a test."""
    address = _address(str(peer[0])) if peer else None
    return address is None or _is_private(address)


def client_of(scope: Any) -> tuple[str, bool]:
    """Who sends this request, and whether the name stands for one client rather than a proxy of many.

    The peer's address; an IPv6 network of 64 bits is one client. A private peer is a proxy where there is
    X-Forwarded-For, and the client its last entry that is not private: proxies append to the right, so what a client
    wrote into the header itself stands to the left of that.
    """
    peer = scope.get("client")
    address = _address(str(peer[0])) if peer else None
    if address is not None and not _is_private(address):
        return _name(address), True
    texts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    hops = [hop for text in ",".join(texts).split(",") if (hop := _address(text)) is not None]
    if hops:
        public = [hop for hop in hops if not _is_private(hop)]
        return _name((public or hops)[-1]), True
    return NOBODY if address is None else _name(address), False


def _address(text: str) -> Address | None:
    """Also of ``[::1]:80`` and ``10.0.0.1:80`` (some balancers write the port), ``::1%eth0``, ``::ffff:1.2.3.4``."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_private(address: Address) -> bool:
    return any(address in network for network in PRIVATE_NETWORKS if network.version == address.version)


def _name(address: Address) -> str:
    return str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


class Allowance:
    """So many requests a minute for each client, as many at once after a pause: a token bucket each.

    May be asked from any thread. Of more than ``most`` clients those that were quiet longest are forgotten, and begin
    anew with a full bucket.

    Args:
        rate: requests a minute; 0 lets all pass.
        clock: seconds that only grow.
    """

    def __init__(self, rate: int, most: int = CLIENTS_KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Client -> tokens left, and when that was; the longest quiet first."""
        self._lock = threading.Lock()
        _living.add(self)

    def take(self, client: str) -> int:
        """0: it may, and has taken a token. Else the seconds after which it may."""
        if self.rate == 0:
            return 0
        now, per_second = self._clock(), self.rate / 60
        with self._lock:
            left, at = self._buckets.pop(client, (float(self.rate), now))
            left = min(float(self.rate), left + (now - at) * per_second)
            allowed = left >= 1
            self._buckets[client] = (left - allowed, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        return 0 if allowed else ceil((1 - left) / per_second)

    def __len__(self) -> int:
        """Clients known."""
        return len(self._buckets)


_living: weakref.WeakSet[Allowance] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for allowance in list(_living):
        allowance._lock = threading.Lock()  # another thread of the parent may have held it at the fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
