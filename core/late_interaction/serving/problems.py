"""Errors as problem JSON (RFC 9457), each with the status that tells whose fault it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from late_interaction.errors import (
    DocumentError,
    LateInteractionError,
    MissingExtraError,
    StoreError,
    StoreLockedError,
)
from late_interaction.serving.served import NoDocumentError

MEDIA_TYPE = "application/problem+json"


class RefusedError(HTTPException):
    """A request that cannot be done as it is.

    Attributes:
        more: members of the answer beside the detail.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.more = more or {}


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the library says of wrong arguments, and of an index that cannot be reached, into `RefusedError`.

    Raises:
        RefusedError: 404 no such document; 422 a wrong argument; 501 an extra is missing; 503 the store failed.
    """
    try:
        yield
    except NoDocumentError as error:
        raise RefusedError(404, str(error)) from None
    except DocumentError as error:
        failures = [asdict(failure) for failure in error.failures]
        members = {"failures": failures, "indexed": error.indexed, "truncated": error.truncated}
        raise RefusedError(422, str(error), members) from None
    except MissingExtraError as error:
        raise RefusedError(501, str(error)) from None
    except StoreLockedError as error:
        raise RefusedError(503, str(error), headers={"retry-after": "5"}) from error
    except StoreError as error:
        more = {"indexed": list(error.indexed)} if error.indexed else None
        raise RefusedError(503, str(error), more) from error
    except (ValueError, TypeError) as error:
        raise RefusedError(422, str(error)) from error
    except LateInteractionError as error:
        raise RefusedError(500, str(error)) from error


def validation_refused(error: RequestValidationError) -> RefusedError:
    """Return what is wrong with a request's fields; without their values, which may be long or secret."""
    errors = [
        {"at": ".".join(str(part) for part in each["loc"]), "reason": each["msg"]} for each in error.errors()
    ]
    return RefusedError(
        422, "; ".join(f"{each['at']}: {each['reason']}" for each in errors)[:2000], {"errors": errors}
    )


def problem_response(error: HTTPException) -> Response:
    """Return the answer of an error."""
    try:
        title = HTTPStatus(error.status_code).phrase
    except ValueError:
        title = "Error"
    problem = {
        **getattr(error, "more", {}),
        "type": "about:blank",
        "title": title,
        "status": error.status_code,
        "detail": error.detail,
    }
    # In ASCII: a message may quote half of a surrogate pair, which UTF-8 does not have.
    return Response(
        json.dumps(problem), error.status_code, headers=dict(error.headers or {}), media_type=MEDIA_TYPE
    )
