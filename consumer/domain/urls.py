"""URLs that may hold credentials: in their user info, or in their query (``?api_key=...``)."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

REDACTED: Final = "REDACTED"
_USER_INFO: Final = re.compile(r"(?<=://)[^/\s?#]*@")
_SHORTEST: Final = 4  # characters of a part that is looked for in other texts
_QUERY: Final = re.compile(r"""(://[^\s?#'"<>]*)[?#][^\s'"<>]*""")


def redact_urls(text: str) -> str:
    """The text with user info, query and fragment of every URL in it replaced."""
    if "://" not in text:
        return text
    return _QUERY.sub(rf"\1?{REDACTED}", _USER_INFO.sub(f"{REDACTED}@", text))


def secrets_of(url: str) -> tuple[str, ...]:
    """What of a URL may be a credential, as it may come back in an answer: the query, the user info (also in base64),
    and their parts of four characters and more. Longer ones first. ValueError for what is no URL."""
    parts = urlsplit(url)
    whole = [parts.query, parts.netloc.rpartition("@")[0], parts.fragment]
    pieces = [parts.username or "", parts.password or "", *(value for _, value in parse_qsl(parts.query))]
    found = {text for text in whole if text} | {text for text in pieces if len(text) >= _SHORTEST}
    found |= {unquote(text) for text in found}
    if parts.username is not None:  # as the header Authorization has it
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        found.add(b64encode(login.encode()).decode())
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


class Url(str):
    """A URL as everybody may see it: what may be a credential is replaced, however it is printed, logged or sent.

    ``secret`` is the URL itself, for whoever sends requests to it.
    """

    __slots__ = ("secret",)

    secret: str

    def __new__(cls, url: str) -> Url:
        shown = super().__new__(cls, redact_urls(url))
        shown.secret = url
        return shown


def secret_of(text: str) -> str:
    """What a ``Url`` stands for; other text as it is."""
    return text.secret if isinstance(text, Url) else text
