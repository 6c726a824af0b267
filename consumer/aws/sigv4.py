"""Signature Version 4 for one kind of request: a POST whose headers never change but for time, token and signature.

botocore derives the signing key and sorts and normalises all headers anew for every request (about 100 us). Here
everything that is constant is rendered once and the key is kept for its day, which leaves four hashes (8 us).
The rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Whoever
uses this compares one signature with botocore's own first (``consumer.aws.lean``): a rule that changes is noticed.
"""

from __future__ import annotations

import datetime as dt
import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs: a snapshot, taken anew for every request because temporary ones are replaced under way."""

    access_key: str
    secret_key: str
    token: str | None


class PostSigner:
    """Signs POST requests to one path of one host.

    Args:
        host: as in the ``Host`` header, with the port unless it is the scheme's own.
        path: URL-encoded as the signature wants it.
        content_type, target: the values of ``Content-Type`` and ``X-Amz-Target``.
        region, service: the signing scope.
    """

    def __init__(self, *, host: str, path: str, content_type: str, target: str, region: str, service: str) -> None:
        self._scope_tail = f"{region}/{service}/aws4_request"
        self._region = region
        self._service = service
        self._before_date = f"POST\n{path}\n\ncontent-type:{content_type}\nhost:{host}\nx-amz-date:"
        self._target = f"\nx-amz-target:{target}\n\ncontent-type;host;x-amz-date;"
        self._key_for: tuple[str, str] = ("", "")
        self._key = b""

    def headers(self, body: bytes, credentials: Credentials, timestamp: str) -> dict[str, str]:
        """The headers that depend on time, body and credentials. ``timestamp`` is ``20260101T000000Z``, UTC."""
        token = credentials.token
        day = timestamp[:8]
        token_line = f"\nx-amz-security-token:{token}" if token else ""
        names = "x-amz-security-token;x-amz-target" if token else "x-amz-target"
        canonical = f"{self._before_date}{timestamp}{token_line}{self._target}{names}\n{sha256(body).hexdigest()}"
        scope = f"{day}/{self._scope_tail}"
        to_sign = f"{ALGORITHM}\n{timestamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._signing_key(credentials.secret_key, day), to_sign.encode(), "sha256").hex()
        headers = {
            "X-Amz-Date": timestamp,
            "Authorization": f"{ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders=content-type;host;x-amz-date;{names}, Signature={signature}",
        }
        if token:
            headers["X-Amz-Security-Token"] = token
        return headers

    def _signing_key(self, secret: str, day: str) -> bytes:
        if self._key_for != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._key_for = key, (secret, day)
        return self._key


def timestamp_of(now: dt.datetime) -> str:
    """The form in which a signature names an instant (UTC)."""
    return now.strftime("%Y%m%dT%H%M%SZ")
