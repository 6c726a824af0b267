"""Terraform's own language, ``.tf`` files: python-hcl2 parses them, and here is judged what can be known of a value.

Known are literals, ``jsonencode`` of them, variables with a default or a given value, and locals made of those. All
else, such as a reference to another resource, is `Unresolved`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from consumer.cli.lambda_import.found import Contents, Found, Function, NotAMapping, Note, as_list, as_mapping
from consumer.cli.lambda_import.intrinsics import Unresolved, holds_unresolved
from consumer.cli.lambda_import.parameters import Parameters
from consumer.cli.lambda_import.source_kind import source_kind
from consumer.cli.lambda_import.sources.cloudformation_functions import function_name_text
from consumer.cli.lambda_import.sources.terraform_names import (
    ALIAS_TYPE,
    FUNCTION_TYPE,
    MAPPING_TYPE,
    function_options,
    mapping_options,
)

_REFERENCE = re.compile(r"([A-Za-z_][\w-]*)((?:\.[A-Za-z_][\w-]*|\[[^\]]*\])+)")
_STEP = re.compile(r"\.([A-Za-z_][\w-]*)")
_INTERPOLATION = re.compile(r"(\$\$\{|%%\{)|\$\{([^{}\"]*)\}")
_ENCODED = re.compile(r"jsonencode\((.*)\)", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_MAX_DEPTH = 100


def terraform_file_mappings(texts: Mapping[str, str], parameters: Parameters) -> Contents:
    """The mappings of the files of one module, by file name.

    Raises:
        NotAMapping: a file is malformed, or python-hcl2 is not installed.
    """
    return _Module([_parsed(name, text) for name, text in texts.items()], parameters).contents()


def _parsed(name: str, text: str) -> Mapping[str, Any]:
    try:
        import hcl2  # an optional dependency, imported where it is needed
        from hcl2 import SerializationOptions
        from lark.exceptions import LarkError, UnexpectedInput
    except ImportError:
        raise NotAMapping(
            "is Terraform's own language, for which python-hcl2 is not installed: pip install "
            "'dynamodb-stream-consumer[terraform]', or import the output of `terraform show -json`"
        ) from None
    options = SerializationOptions(with_comments=False, explicit_blocks=False, preserve_heredocs=False)
    try:
        return hcl2.loads(text, serialization_options=options)
    except LarkError as error:
        place = f": line {error.line}, column {error.column}" if isinstance(error, UnexpectedInput) else ""
        within = f" in {name}" if name else ""
        raise NotAMapping(f"is not valid Terraform{within}{place}: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise NotAMapping("is nested too deeply") from None


class _Module:
    def __init__(self, files: list[Mapping[str, Any]], parameters: Parameters) -> None:
        self._parameters = parameters
        self._files = files
        self._being_read: set[str] = set()
        self._variables = dict(self._blocks("variable"))
        parameters.declare(self._variables)
        self._locals = {
            key: value for file in files for block in as_list(file.get("locals")) for key, value in block.items()
        }
        self._resources = {
            f"{_unquoted(kind)}.{name}": body
            for file in files
            for block in as_list(file.get("resource"))
            for kind, named in block.items()
            for name, body in _named(named)
        }

    def contents(self) -> Contents:
        contents = Contents()
        for address, body in self._resources.items():
            if address.startswith(f"{MAPPING_TYPE}."):
                contents.mappings.append(self._found(address, body))
        for name, body in self._blocks("module"):
            if "event_source_mapping" in body or not contents.mappings:
                reason = "what it makes is not looked into: import the output of `terraform show -json`"
                contents.notes.append(Note(f"module.{name}", reason))
        return contents

    def _blocks(self, kind: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
        for file in self._files:
            for block in as_list(file.get(kind)):
                yield from _named(block)

    def _found(self, address: str, body: Mapping[Any, Any]) -> Found:
        attributes = self._body(body)
        function = self._function(attributes.get("function_name"), 2)
        properties = mapping_options(attributes)
        label = address.partition(".")[2]
        notes = self._parameters.notes()
        for several in ("count", "for_each"):
            if several in body:
                reason = "makes several mappings, or none: each needs a config file and an application of its own"
                notes += (Note(several, reason),)
        kind = source_kind(properties, lambda reference: reference.partition(".")[0])
        also = (label, *([function.name] if function else []))
        return Found(address, properties, kind, function, label, also, notes)

    def _function(self, value: Any, steps: int) -> Function | None:
        functions = {name: body for name, body in self._resources.items() if name.startswith(f"{FUNCTION_TYPE}.")}
        wanted = function_name_text(value)
        for name, body in functions.items():
            own = function_name_text(self.value(body.get("function_name")))
            if wanted and own == wanted:
                return function_options(name.partition(".")[2], self._body(body))
        for reference in value.resources if isinstance(value, Unresolved) else ():
            if reference in functions:
                return function_options(reference.partition(".")[2], self._body(functions[reference]))
            if reference.startswith(f"{ALIAS_TYPE}.") and steps:
                alias = as_mapping(self._resources.get(reference))
                return self._function(self.value(alias.get("function_name")), steps - 1)
        return None

    def _body(self, body: Mapping[Any, Any]) -> dict[str, Any]:
        """The attributes and blocks of a block; those that dynamic blocks make cannot be known."""
        attributes = {_unquoted(key): self.value(value) for key, value in body.items() if key != "dynamic"}
        for block in as_list(body.get("dynamic")):
            for name, _ in _named(block):
                attributes[name] = Unresolved(f'dynamic "{name}"')
        return attributes

    def value(self, written: Any, depth: int = 0) -> Any:
        """What an attribute, as python-hcl2 gives it, is; `Unresolved` when it is not known here."""
        if depth > _MAX_DEPTH:
            return Unresolved(str(written))
        if isinstance(written, Mapping):
            if "dynamic" in written:
                return self._body(written)
            return {_key(key): self.value(item, depth + 1) for key, item in written.items()}
        if isinstance(written, list):
            return [self.value(item, depth + 1) for item in written]
        if not isinstance(written, str):
            return written
        if written.startswith('"'):
            return self._template(written[1:-1], depth)
        if written.startswith("${") and written.endswith("}"):
            return self._expression(written[2:-1].strip(), depth)
        return written  # a bare word, such as the type of a variable

    def _template(self, source: str, depth: int) -> Any:
        """A text in quotes: what is between the interpolations, and their values."""
        parts: list[str] = []
        values: list[Any] = []
        end = 0
        for match in _INTERPOLATION.finditer(source):
            parts.append(_unescaped(source[end : match.start()]))
            end = match.end()
            if match[1]:
                parts.append(match[1][1:])
            else:
                values.append(self._expression(match[2].strip(), depth + 1))
                parts.append(_text(values[-1]))
        parts.append(_unescaped(source[end:]))
        text, between = "".join(parts), _INTERPOLATION.sub("", source)
        known = all(isinstance(value, str | int | float) for value in values)
        if known and "${" not in between and "%{" not in between:
            return text
        resources = dict.fromkeys(name for one in values if isinstance(one, Unresolved) for name in one.resources)
        return Unresolved(source, text, tuple(resources))

    def _expression(self, source: str, depth: int) -> Any:
        encoded = _ENCODED.fullmatch(source)
        if encoded:
            value = self._encoded(encoded[1], depth)
            return Unresolved(source, f"${{{source}}}") if value is None else value
        reference = _REFERENCE.fullmatch(source)
        if reference is None:
            if re.fullmatch(r"-?[0-9.]+([eE][-+]?[0-9]+)?", source):
                return float(source)
            return Unresolved(source, f"${{{source}}}")
        kind, steps = reference[1], [step[1] for step in _STEP.finditer(reference[2])]
        unresolved = Unresolved(source, f"${{{source}}}", (f"{kind}.{steps[0]}",) if steps else ())
        if "[" in reference[2] and kind in ("var", "local"):
            return unresolved
        if kind == "var":
            return _at(self._variable(steps[0], unresolved), steps[1:], unresolved)
        if kind == "local" and steps[0] in self._locals:
            return _at(self._local(steps[0], unresolved, depth), steps[1:], unresolved)
        return unresolved

    def _local(self, name: str, unresolved: Unresolved, depth: int) -> Any:
        if name in self._being_read:
            return unresolved  # it leads back to itself
        self._being_read.add(name)
        try:
            return self.value(self._locals[name], depth + 1)
        finally:
            self._being_read.discard(name)

    def _encoded(self, source: str, depth: int) -> str | None:
        try:
            parsed = _parsed("", f"value = {source}\n")
        except NotAMapping:
            return None
        value = self.value(parsed.get("value"), depth + 1)
        return None if holds_unresolved(value) else json.dumps(value)

    def _variable(self, name: str, unresolved: Unresolved) -> Any:
        declared = as_mapping(self._variables.get(name))
        given = self._parameters.given(name)
        if given is not None:
            typed = str(declared.get("type")) in ("number", "bool") or given.startswith(("[", "{"))
            try:
                return json.loads(given) if typed else given
            except ValueError:
                return given
        default = self.value(declared.get("default"))
        if default is None:
            return unresolved
        return self._parameters.default(name, default, secret=declared.get("sensitive") is True)


def _named(block: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The labelled blocks in a block: name and body."""
    for name, body in as_mapping(block).items():
        if isinstance(body, Mapping):
            yield _unquoted(name), body


def _unquoted(key: Any) -> str:
    return str(key).strip('"')


def _key(key: Any) -> Any:
    text = str(key)
    return Unresolved(text, text) if text.startswith("${") else _unquoted(text)


def _at(value: Any, steps: list[str], unresolved: Unresolved) -> Any:
    for step in steps:
        value = as_mapping(value).get(step, unresolved)
    return value


def _text(value: Any) -> str:
    if isinstance(value, Unresolved):
        return value.text
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unescaped(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        try:
            return chr(int(code, 16)) if code else _ESCAPES.get(match[3], match[3])
        except (ValueError, OverflowError):
            return match[0]

    return _ESCAPE.sub(replace, text)
