"""docs/configuration.md is what is made of the schema: every key, with its type, limits and default."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest
import yaml

from consumer.settings.printed import json_schema
from consumer.settings.reload import RELOADABLE, values
from docs.site.configuration import EXAMPLES, PAGE, SAMPLE, example, kind, page, prose, reference
from tests.unit.settings.conftest import Load
from tests.unit.settings.test_bad_files import BASE

TEXT = PAGE.read_text(encoding="utf-8")
HEADINGS = re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)


def entry(key: str) -> str:
    """What the page says of a key."""
    return re.split(r"^##+ ", TEXT.partition(f"# {key}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_page_is_the_generated_one() -> None:
    assert page() == TEXT, "make it again: make schema"


def test_every_key_has_an_entry_with_what_it_takes(load: Load) -> None:
    names = [".".join(path) for path, _ in values(load(BASE))]
    assert len(names) > 60
    assert [name for name in names if name not in HEADINGS] == []
    assert [name for name in names if "**type** " not in entry(name)] == []
    assert {name for name in names if "**reload** " in entry(name)} == set(RELOADABLE)


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("application", "**type** text, `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}` · **required**"),
        ("batch.batch_size", "**type** whole number, 1 to 10000 · **default** `100`"),
        ("batch.batching_window", "**type** duration, 0 to 300s · **default** `0s`"),
        ("batch.report_batch_item_failures", "**type** `true`, `false` or `null` · **default** `null`"),
        ("handler.max_memory", "**type** size, 16MiB to 1024GiB or `0` · **default** `0`"),
        ("handler.python", "**type** text · **default** none"),
        ("on_failure.order", "**type** `continue`, `park_key` or `block` · **default** `continue`"),
        (
            "retry.max_record_age",
            "**type** duration, 1m to 365d or `-1` · **default** `-1` · **reload** with the next batch",
        ),
        (
            "source.starting_position",
            "**type** `trim_horizon`, `latest` or a time with its zone · **default** `trim_horizon`",
        ),
    ],
)
def test_the_facts_of_a_key(key: str, facts: str) -> None:
    assert entry(key).split("\n")[2] == facts or facts in entry(key).split("\n")


def test_every_example_is_one_that_the_schema_accepts() -> None:
    schema = json_schema()
    sample = SAMPLE.read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for name in schema["properties"]:
        found |= yaml.safe_load(example(sample, name))
    jsonschema.Draft202012Validator(schema).validate(found)
    assert set(found) == set(schema["properties"])
    assert found["filters"], "an example of filters has one"
    assert set(EXAMPLES) <= set(found)


def test_a_section_that_the_sample_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="no section batch"):
        reference(json_schema(), SAMPLE.read_text(encoding="utf-8").replace("\nbatch:", "\n# batch:"))


@pytest.mark.parametrize(
    "field",
    [
        {"type": "number", "description": "A kind that the reference has no words for."},
        {"type": "string", "pattern": "^(0|[0-9]+(\\.[0-9]+)?(ms|s|m|h|d))$", "description": "Without its limits."},
    ],
)
def test_what_has_no_words_is_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"add a case for it|must begin with its limits"):
        kind(field)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AWS_ENDPOINT_URL* also work", "`AWS_ENDPOINT_URL*` also work"),
        ("*.email (* is any one name)", "`*.email` (`*` is any one name)"),
        ("needs parallelization_factor: 1. And", "needs `parallelization_factor: 1`. And"),
        ("With batch.order: key it is", "With `batch.order: key` it is"),
        ("s3://bucket/prefix for payloads", "`s3://bucket/prefix` for payloads"),
        ("one of `table` and `stream_arn`", "one of `table` and `stream_arn`"),
        ("Default [], or <none>", "Default \\[], or \\<none>"),
        ("key (default): a failing key", "`key` (default): a failing key"),
        ("shard: Lambda's order, of the shard", "`shard`: Lambda's order, of the shard"),
    ],
)
def test_code_in_the_texts_of_the_schema_looks_like_it_and_nothing_is_markup(text: str, shown: str) -> None:
    assert prose(text, ("key", "shard")) == shown
