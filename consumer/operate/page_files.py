"""The status page as it is served: three static files of the package, read once."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from typing import Final

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_PATHS: Final = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}


@dataclass(frozen=True, slots=True)
class PageFile:
    """``tag`` is its entity tag."""

    content_type: str
    body: bytes
    tag: str


def page_files() -> dict[str, PageFile]:
    """By the path of their URLs."""
    folder = files("consumer.operate") / "page"
    found = {}
    for path, name in _PATHS.items():
        body = (folder / name).read_bytes()
        kind = _TYPES[name.rpartition(".")[2]]
        found[path] = PageFile(f"{kind}; charset=utf-8", body, f'"{blake2b(body, digest_size=12).hexdigest()}"')
    return found
