"""Fetch images from URLs: from public addresses only, with limits to size, time and redirects."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from ssl import SSLContext

    import httpcore

MAX_BYTES = 32 * 1024 * 1024
MAX_REDIRECTS = 3
TIMEOUT_S = 20.0

# The special-purpose registries of IANA, as `is_global` knows them in one release of Python and not in another.
_NOT_PUBLIC_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        ),
    )
)  # fmt: skip
# Of IPv6 only what is given to networks is public (global unicast), and of that not protocols' own addresses (Teredo,
# ORCHID, benchmarks), documentation, and 6to4, which leads into any network of IPv4.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
# An address of IPv4 in one of IPv6: mapped, and translated on its way (NAT64), which networks of IPv6 alone need.
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96")))
_REDIRECTS = (301, 302, 303, 307, 308)


def fetch_image(url: str) -> tuple[str, bytes]:
    """Fetch an image; return its URL without what may be secret in it, for messages, and its bytes.

    Raises:
        ValueError: it is not an http or https URL, leads to an address that is not public, or the answer is not an
            image, too large or too late.
    """
    import httpcore
    import httpx

    url = url.strip()
    name, deadline = public_part(url), time.monotonic() + TIMEOUT_S
    try:
        # Proxies of the environment are not used: behind one it could not be seen where a URL leads.
        with httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(), network_backend=_public_network(deadline)
        ) as pool:
            for _ in range(MAX_REDIRECTS + 1):
                location, data = _get(pool, url)
                if location is None:
                    return name, data
                url = urljoin(url, location)
    except (httpcore.TimeoutException, TimeoutError):
        raise ValueError(f"{name} did not answer within {TIMEOUT_S:.0f} seconds.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
        raise ValueError(f"{name} cannot be fetched: {str(error) or type(error).__name__}.") from None
    except httpx.InvalidURL as error:
        raise ValueError(f"{name} is not a URL: {error}") from None
    except _RefusedError as error:
        raise ValueError(f"{name} {error}.") from None
    raise ValueError(f"{name} redirects more than {MAX_REDIRECTS} times.")


def public_part(url: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"[:200]


class _RefusedError(Exception):
    """Why an answer is refused; the message goes behind the URL."""


def _get(pool: httpcore.ConnectionPool, url: str) -> tuple[str | None, bytes]:
    """Return where a redirect leads, or else the bytes."""
    import httpcore
    import httpx

    asked = httpx.URL(url)  # which encodes what is not ASCII, in the name of the host too
    if asked.scheme not in ("http", "https"):
        raise _RefusedError(f"leads to {asked.scheme}:, and only http and https are fetched")
    if not asked.host:
        raise _RefusedError("names no host")
    headers = [("Accept", "image/*"), ("User-Agent", "late-interaction")]
    target = httpcore.URL(
        scheme=asked.raw_scheme, host=asked.raw_host, port=asked.port, target=asked.raw_path
    )
    with pool.stream("GET", target, headers=headers) as answer:
        named = {key.lower(): value for key, value in answer.headers}
        if answer.status in _REDIRECTS and b"location" in named:
            return named[b"location"].decode(errors="replace"), b""
        if answer.status != 200:
            raise _RefusedError(f"answers with status {answer.status}")
        media_type = named.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        if not media_type.startswith("image/"):
            raise _RefusedError(f"is of type {media_type or 'unknown'}, not an image")
        return None, _body(answer.iter_stream())


def _body(chunks: Iterable[bytes]) -> bytes:
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > MAX_BYTES:
            raise _RefusedError(f"has more than {MAX_BYTES:,} bytes")
    return bytes(data)


def _public_network(deadline: float) -> httpcore.NetworkBackend:
    import httpcore

    def remaining() -> float:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    class PublicNetwork(httpcore.SyncBackend):
        """Connects to the address that it has checked, so that a name cannot mean another one a moment later."""

        def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, *options: Any, **more: Any
        ) -> httpcore.NetworkStream:
            stream = super().connect_tcp(
                _resolved(host, port, remaining()), port, remaining(), *options, **more
            )
            return HurriedStream(stream)

    class HurriedStream(httpcore.NetworkStream):
        """Ends at the deadline, however many small pieces come: a timeout of httpcore is for each of them."""

        def __init__(self, stream: httpcore.NetworkStream) -> None:
            self._stream = stream

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._stream.read(max_bytes, remaining())

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._stream.write(buffer, remaining())

        def close(self) -> None:
            self._stream.close()

        def start_tls(
            self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
        ) -> httpcore.NetworkStream:
            return HurriedStream(self._stream.start_tls(ssl_context, server_hostname, remaining()))

        def get_extra_info(self, info: str) -> Any:
            return self._stream.get_extra_info(info)

    return PublicNetwork()


def public_address(host: str, port: int) -> str:
    """Return the address that a name stands for.

    Raises:
        ConnectionRefusedError: it, or one of them, is not public: of this machine, a private network, a cloud's
            metadata service and the like.
        OSError: there is no such name.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in found:
        if not _is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise ConnectionRefusedError(f"{host} is at {address}, which is not a public address")
    return found[0]


def _resolved(host: str, port: int, timeout_s: float) -> str:
    """Resolve a name on another thread, since the system's resolver has no time limit and may hang.

    Raises:
        TimeoutError: there is no answer in time. The thread ends when the resolver does.
        OSError: as `public_address`.
    """
    answers: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(public_address(host, port))
        except Exception as error:  # noqa: BLE001 – raised below, where the answer is waited for
            answers.put(error)

    threading.Thread(target=look_up, name="late-interaction resolver", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address is one that anybody on the internet can reach."""
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_4)
    if any(ip in network for network in _EMBEDDING):
        return _is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return ip in _PUBLIC_6 and not any(ip in network for network in _NOT_PUBLIC_6)
