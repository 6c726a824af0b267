"""Credentials in URLs: what is shown, and what is looked for elsewhere."""

from __future__ import annotations

import json
import pickle

import pytest

from consumer.domain.urls import Url, redact_urls, secrets_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://svc:hunter2@host/in?api_key=K", "https://REDACTED@host/in?REDACTED"),
        ("https://token@host:8080/", "https://REDACTED@host:8080/"),
        ("https://host/in#part", "https://host/in?REDACTED"),
        ("https://host/in", "https://host/in"),
        ("cannot reach 'http://a:b@h/x?k=1', tried twice", "cannot reach 'http://REDACTED@h/x?REDACTED', tried twice"),
        ("http://a:p@ss@h/ http://c@i/?q", "http://REDACTED@h/ http://REDACTED@i/?REDACTED"),
        ("myapp.handlers:handler", "myapp.handlers:handler"),
        ("who?me@home", "who?me@home"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert redact_urls(text) == shown


def test_a_url_is_redacted_however_it_is_written() -> None:
    url = Url("https://svc:hunter2@host/in?api_key=KEY")
    for text in (str(url), repr(url), f"{url}", json.dumps([url]), f"{url} {url}"):
        assert "hunter2" not in text
        assert "KEY" not in text
    assert url.secret == "https://svc:hunter2@host/in?api_key=KEY"
    assert b"hunter2" not in pickle.dumps(str(url))


def test_what_may_come_back_in_an_answer() -> None:
    found = secrets_of("https://svc:hunter%2F2@host/in?api_key=SECRET&page=1&x=a%20b%20c")
    assert found[0] == max(found, key=len)
    assert {
        "svc:hunter%2F2",
        "hunter/2",
        "c3ZjOmh1bnRlci8y",
        "SECRET",
        "a b c",
        "api_key=SECRET&page=1&x=a%20b%20c",
    } <= set(found)
    assert not {"1", "svc", ""} & set(found)
    assert secrets_of("https://host/in") == ()
