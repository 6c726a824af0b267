"""Reading the text of a file: JSON, YAML (with CloudFormation's short functions), or Terraform's own language."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from consumer.cli.lambda_import.found import NotAMapping
from consumer.cli.lambda_import.intrinsics import Intrinsic, as_intrinsics
from consumer.settings.expansion import scalar_value

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_HCL = re.compile(
    r"^[ \t]*((resource|data|variable|module|provider|output)[ \t]+\"[^\n]*|(locals|terraform)[ \t]*)\{", re.MULTILINE
)


class _Loader(yaml.SafeLoader):
    """Plain values; every tag that is not YAML's own is a CloudFormation function. Times stay text, as in JSON."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> Intrinsic:
    if isinstance(node, yaml.ScalarNode):
        return Intrinsic(suffix, loader.construct_scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return Intrinsic(suffix, loader.construct_sequence(node, deep=True))
    return Intrinsic(suffix, loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else "")


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_multi_constructor("!", _function)


class _CoreLoader(_Loader):
    """The same in YAML 1.2, where `yes`, `on` and `010` are what they look like."""


def _plain(loader: _CoreLoader, node: yaml.ScalarNode) -> Any:
    text = loader.construct_scalar(node)
    return scalar_value(text) if node.style is None else text


_CoreLoader.yaml_implicit_resolvers = {"<": [(_MERGE, re.compile("<<"))]}
_CoreLoader.add_constructor("tag:yaml.org,2002:str", _plain)


def decode(raw: bytes) -> str:
    """The text of a file; PowerShell's ``>`` writes UTF-16. Raises NotAMapping."""
    try:
        return raw.decode("utf-16" if raw.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotAMapping(f"is not text in UTF-8: {error.reason} at byte {error.start}") from None


def is_terraform(text: str) -> bool:
    """Whether it is written in the language of ``.tf`` files."""
    return _HCL.search(text) is not None


def parse(text: str, *, yaml_1_2: bool = False) -> Any:
    """The document as plain values and `Intrinsic`. CloudFormation reads YAML 1.1, and serverless ``yaml_1_2``.

    Raises:
        NotAMapping: it is neither JSON nor YAML.
    """
    try:
        return as_intrinsics(json.loads(text))
    except RecursionError:
        raise NotAMapping("is nested too deeply") from None
    except ValueError as error:
        looks_like_json = text.lstrip().startswith(("{", "["))
        in_json = f"is not JSON: {error}"
    try:
        return as_intrinsics(yaml.load(text, Loader=_CoreLoader if yaml_1_2 else _Loader))  # noqa: S506  # both are SafeLoaders
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise NotAMapping(
            in_json if looks_like_json else f"is neither JSON nor YAML: {_first_problem(error)}"
        ) from None


def _first_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return " ".join(f"{place}{problem}".split())
