"""Which failures of a store pass, how long they are waited out, and how those that stay are named."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deepmac_distill.errors import StorageError
from deepmac_distill.storage.location import Location

Result = TypeVar("Result")
# Words of the SDKs for what another try does not change, and what a person can do about it.
_PERMANENT = (
    (
        r"ACCESS_DENIED|AccessDenied|HTTP status 403|PERMISSION_DENIED|Forbidden",
        "no permission",
        "credentials in the environment that may do this",
    ),
    (
        r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|InvalidClientTokenId|UNRECOGNIZED_CLIENT|EXPIRED"
        r"|HTTP status 401|UNAUTHENTICATED|INVALID_SIGNATURE|MISSING_AUTHENTICATION_TOKEN|InvalidToken",
        "the credentials are refused",
        "credentials in the environment that hold",
    ),
    (r"NO_SUCH_BUCKET|NoSuchBucket", "no such bucket", "a bucket that is there"),
    (r"NO_SUCH_KEY|RESOURCE_NOT_FOUND|Path does not exist|NOT_FOUND", "no such object", "one that is there"),
    (
        r"PermanentRedirect|HTTP status 30[17]|AuthorizationHeaderMalformed|IllegalLocationConstraint"
        r"|INVALID_REGION",
        "the bucket is in another region",
        "AWS_DEFAULT_REGION to be the bucket's",
    ),
    (
        r"HTTP status 4(?!08|29)\d\d|INVALID_PARAMETER|ValidationError",
        "the request is refused",
        "another, or AWS_DEFAULT_REGION to be the bucket's",
    ),
)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried and how long is waited in between, twice as long each time."""

    tries: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 10.0
    sleep: Callable[[float], None] = time.sleep

    def wait_s(self, tried: int) -> float:
        """Before the next try; a random half of it, so that many machines do not come at one time."""
        whole = min(self.longest_wait_s, self.first_wait_s * 2.0**tried)
        return whole * (0.5 + random.random() / 2)


PATIENT = Retries()
ONCE = Retries(tries=1)


class Gone(StorageError):
    """There is no such object."""


def tried(place: Location, doing: str, call: Callable[[], Result], retries: Retries = PATIENT) -> Result:
    """The result of a call to a store, which is repeated while its failures may pass.

    Args:
        doing: what it does, for the message, such as "reading".

    Raises:
        Gone: there is no such object.
        StorageError: it failed for good, or each time.
    """
    error: Exception | None = None
    for attempt in range(retries.tries):
        if attempt:
            retries.sleep(retries.wait_s(attempt - 1))
        try:
            return call()
        except FileNotFoundError as missing:
            raise Gone(f"{place}: no such object ({doing}); expected one that is there") from missing
        except (OSError, ValueError) as failed:  # Arrow's errors are of both kinds
            error = failed
            if (reason := permanent(str(failed))) is not None:
                kind = Gone if reason[0] == "no such object" else StorageError
                raise kind(f"{place}: {reason[0]} ({doing}); expected {reason[1]}") from failed
    times = f", tried {retries.tries} times" if retries.tries > 1 else ""
    raise StorageError(
        f"{place}: {doing} failed: {short(str(error))}{times}; expected a store that answers; the same "
        "command goes on from what is done"
    ) from error


def permanent(message: str) -> tuple[str, str] | None:
    """What is wrong and what is expected, where another try would not change it.

    >>> permanent("AWS Error ACCESS_DENIED during PutObject operation")[0], permanent("AWS Error SLOW_DOWN")
    ('no permission', None)
    """
    for words, reason, expected in _PERMANENT:
        if re.search(words, message):
            return reason, expected
    return None


def short(message: str) -> str:
    """An SDK's message in one line, without the ids of its requests.

    >>> short("When x: AWS Error SLOW_DOWN during GetObject operation: Reduce your rate (Request ID: abc)")
    'AWS Error SLOW_DOWN during GetObject operation: Reduce your rate'
    """
    text = re.sub(r"\s*\(?Request ID:.*", "", " ".join(message.split()))
    _, found, rest = text.partition("AWS Error ")
    return f"{found}{rest}" if found else text[:200]
