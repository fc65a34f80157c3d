"""Who may ask: the hosts a request may name, the pages it may come from, its token, its size.

A page anywhere on the web can send requests to a server on the reader's own machine. It cannot forge what the browser
says of it: `Host` is the name that it was reached by, also if that name was made to mean 127.0.0.1 a moment ago (DNS
rebinding), `Origin` and `Sec-Fetch-Site` are where the page is from.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from late_interaction.serving import TOKEN_VARIABLE
from late_interaction.serving.problems import problem_response

HEALTH = "/api/health"
MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request: 1,000 documents, or some pages in base64."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS = {"http": 80, "https": 443}

HEADERS = {
    # There is a script of our own and no other; styles stand in the page, as those of an explanation do.
    "content-security-policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
        token: what each request has to bring; None for whoever reaches the server.
        hosts: names that a request may have reached the server by, in lower case; None for any.
    """

    token: str | None
    hosts: frozenset[str] | None

    def __repr__(self) -> str:
        return f"Access(token={'…' if self.token else None}, hosts={self.hosts})"

    @classmethod
    def to(cls, host: str, token: str | None, allowed_hosts: tuple[str, ...] = ()) -> Access:
        """Return who may ask a server that listens at `host`.

        Args:
            host: an address or a name.
            token: the secret; None or "" for none.
            allowed_hosts: further names that it is reached by, such as a proxy's.

        Raises:
            ValueError: it can be reached from other machines and there is no token, or the token cannot be sent.
        """
        token = token or None
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise ValueError("the token must be of ASCII letters, digits and signs, without spaces.")
        named = frozenset(map(_without_brackets, allowed_hosts))
        local = is_loopback(host)
        if token is None and not (local and named <= _LOCAL):
            raise ValueError(
                f"{host if not local else ', '.join(sorted(named - _LOCAL))} can be reached from other machines: give "
                f"a token in the variable {TOKEN_VARIABLE} (or by --token), such as what "
                '`python -c "import secrets; print(secrets.token_urlsafe())"` prints.'
            )
        # Behind a token, another name is harmless: a page that uses it has not got the token.
        hosts = _LOCAL | named | {_without_brackets(host)} if local or named else None
        return cls(token, hosts)


def is_loopback(host: str) -> bool:
    """Return whether an address or name is of this machine only.

    Raises:
        ValueError: there is no such name.
    """
    if not host:
        return False
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"there is no address {host!r}: {error}.") from None
    addresses = {str(info[4][0]) for info in infos}
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)


class Guard:
    """Lets requests through to an app that may be asked, and tells browsers what the answers may do."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
        except HTTPException as refused:
            await problem_response(refused)(scope, receive, with_headers)
            return
        await self._app(scope, _bounded(receive), with_headers)

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._access.hosts is not None and _name(host) not in self._access.hosts:
            raise HTTPException(
                421, f"This server is not called {host[:100]!r}; --allowed-host names what else it is called."
            )
        check_origin(scope["method"], host, headers)
        if self._access.token is not None and scope["path"] != HEALTH:
            check_token(headers.get("authorization", ""), self._access.token)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > MAX_BODY:
            raise _too_large()


def check_origin(method: str, host: str, headers: Headers) -> None:
    """Check that a request is not of another site's page; a link on one may be followed.

    Raises:
        HTTPException: 403, it is.
    """
    origin = headers.get("origin")
    if origin is not None and _place(origin) != _place(f"{origin.partition(':')[0]}://{host}"):
        raise HTTPException(403, "The request comes from a page of another site.")
    site = headers.get("sec-fetch-site", "none")
    followed = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not followed:
        raise HTTPException(403, "The request comes from a page of another site.")


def check_token(authorization: str, token: str) -> None:
    """Check the token, as a bearer's or as the password of HTTP's basic authentication, which browsers ask for.

    Raises:
        HTTPException: 401, it is another one, or there is none.
    """
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            given = ""
    elif scheme.lower() != "bearer":
        given = ""
    if not secrets.compare_digest(given.strip().encode(), token.encode()):
        raise HTTPException(
            401,
            "Send the server's token: `Authorization: Bearer TOKEN`, or in a browser as the password, with any name.",
            {"www-authenticate": 'Basic realm="late-interaction", charset="UTF-8", Bearer'},
        )


def _bounded(receive: Receive) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY:
            raise _too_large()
        return message

    return bounded


def _too_large() -> HTTPException:
    return HTTPException(413, f"A request may have {MAX_BODY:,} bytes: send fewer documents at a time.")


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; "" where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _place(url: str) -> tuple[str, int | None] | None:
    """Return name and port of a URL; None where it has none, as the origin "null"."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port or _PORTS.get(parts.scheme)) if parts.hostname else None
    except ValueError:
        return None


def _without_brackets(host: str) -> str:
    return host.strip("[]").lower()
