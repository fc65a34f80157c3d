"""The ways in which a request to the Data API fails, as one kind of error that says whether to try again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from late_interaction.errors import StoreError

if TYPE_CHECKING:
    from astrapy.exceptions import DataAPIHttpException

T = TypeVar("T")
C = TypeVar("C")

NOT_THE_DATA_API = "the answer is not one of the Data API"
_NEVER_RETRIED = {"INVALID_DATABASE_QUERY", "UNSUPPORTED_DATABASE_QUERY", "UNAUTHORIZED_ACCESS"}
"""Codes of the SERVER family that are the request's own fault: another attempt gets the same answer."""
_UNKNOWN_TABLE = {"UNKNOWN_COLLECTION_OR_TABLE", "COLLECTION_NOT_EXIST", "TABLE_NOT_EXIST"}
_EXISTS = {"CANNOT_ADD_EXISTING_INDEX", "CANNOT_ADD_EXISTING_TABLE"}
_OVERLOAD = {
    "TIMEOUT_READING_DATA",
    "TIMEOUT_WRITING_DATA",
    "UNAVAILABLE_DATABASE",
    "UNEXPECTED_DRIVER_ERROR",
}
_LONGEST_RETRY_AFTER_S = 20.0
_LONGEST_MESSAGE = 400
_CAUSE = re.compile(r"^(?:The database error|Error Message): *(.+)$", re.MULTILINE)
"""The line of a longer message that says what went wrong."""
_NO_HELP = re.compile(
    r"The command (used|generated|supported)|The commands supported|(Resend|It is safe to retry|Review the Error)\b"
)
"""The beginning of lines that a caller of this library cannot use: CQL with its values among them."""


class ServiceError(StoreError):
    """A request failed for good.

    Attributes:
        outage: True if the service did not answer properly, however often it was asked: a write may or may not have
            been applied. False if the service refused the request.
        no_table: True if the table does not exist.
        exists_already: True if what was to be created exists.
    """

    def __init__(
        self, message: str, *, outage: bool, no_table: bool = False, exists_already: bool = False
    ) -> None:
        super().__init__(message)
        self.outage = outage
        self.no_table = no_table
        self.exists_already = exists_already


class RequestFailedError(Exception):
    """One attempt at a request failed.

    Attributes:
        retryable: True if another attempt may succeed.
        wait_s: how long the service asked us to wait before it.
        overload: True if fewer requests at a time may help.
        no_table: True if the table does not exist.
        exists_already: True if what was to be created exists.
    """

    def __init__(
        self,
        reason: str,
        *,
        retryable: bool,
        wait_s: float = 0.0,
        overload: bool = False,
        codes: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(reason)
        self.retryable = retryable
        self.wait_s = wait_s
        self.overload = overload or not codes.isdisjoint(_OVERLOAD)
        self.no_table = not codes.isdisjoint(_UNKNOWN_TABLE)
        self.exists_already = not codes.isdisjoint(_EXISTS)


async def attempt(ask: Callable[[C], Awaitable[T]], connections: C, timeout_s: float) -> T:
    """Ask once, within `timeout_s`; whatever astrapy or httpx raise becomes a `RequestFailedError`.

    Their own texts may hold the token.
    """
    import httpx
    from astrapy.exceptions import (
        DataAPIHttpException,
        DataAPIResponseException,
        DataAPITimeoutException,
        UnexpectedDataAPIResponseException,
    )

    try:
        async with asyncio.timeout(timeout_s):
            return await ask(connections)
    except DataAPIHttpException as error:
        raise _failure_of_status(error) from None
    except (DataAPITimeoutException, TimeoutError):
        raise RequestFailedError(
            f"no answer came within {timeout_s:.3g} s", retryable=True, overload=True
        ) from None
    except DataAPIResponseException as error:
        raise failure_of(
            [
                {"errorCode": one.error_code, "message": one.message, "family": one.family}
                for one in error.error_descriptors
            ]
        ) from None
    except UnexpectedDataAPIResponseException:
        raise RequestFailedError(NOT_THE_DATA_API, retryable=True) from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError):
        raise RequestFailedError(
            "the request cannot be sent: the endpoint is not a URL",
            retryable=False,
        ) from None
    except httpx.TransportError as error:
        raise RequestFailedError(f"the connection failed ({type(error).__name__})", retryable=True) from None


def failure_of(errors: Sequence[Any]) -> RequestFailedError:
    """Join the Data API's error objects into one failure; it is retryable only if every one of them is."""
    if not all(isinstance(error, Mapping) for error in errors):
        return RequestFailedError(NOT_THE_DATA_API, retryable=True)
    codes = frozenset(str(error.get("errorCode")) for error in errors)
    reasons = dict.fromkeys(f"{error.get('errorCode')}: {_brief(error.get('message'))}" for error in errors)
    retryable = bool(errors) and all(
        error.get("family") == "SERVER" and error.get("errorCode") not in _NEVER_RETRIED for error in errors
    )
    return RequestFailedError(
        "; ".join(reasons) or "the service gave no reason", retryable=retryable, codes=codes
    )


def _failure_of_status(error: DataAPIHttpException) -> RequestFailedError:
    status = error.response.status_code
    described = "; ".join(f"{one.error_code}: {_brief(one.message)}" for one in error.error_descriptors)
    if status in (401, 403):
        return RequestFailedError(
            f"the service does not accept the token (HTTP {status}{described and ', ' + described})",
            retryable=False,
        )
    try:
        wait_s = min(float(error.response.headers.get("Retry-After", 0)), _LONGEST_RETRY_AFTER_S)
    except ValueError:  # A date: rare, and no more exact than our own waits.
        wait_s = 0.0
    return RequestFailedError(
        f"HTTP {status}{described and ', ' + described}",
        retryable=status in (408, 429) or status >= 500,
        wait_s=wait_s,
        overload=status in (408, 429, 503, 504),
    )


def _brief(message: object) -> str:
    """Return what helps of a message of the Data API, whose paragraphs explain the command, the CQL and the values.

    That is the database's own error where it names one, or else the first paragraph and the lines that name something
    of the request.
    """
    text = str(message).strip()
    causes = _CAUSE.findall(text)
    if causes:
        useful = causes
    else:
        first, *others = re.split(r"\n\s*\n", text)
        lines = [line.strip() for paragraph in others for line in paragraph.splitlines()]
        useful = [first, *(line for line in lines if ": " in line and not _NO_HELP.match(line))]
    brief = " ".join(" ".join(useful).split())
    if len(brief) > _LONGEST_MESSAGE:
        brief = brief[: _LONGEST_MESSAGE - 1].rstrip() + "…"
    return brief.rstrip(".")
