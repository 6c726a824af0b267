"""The variables of ``serverless.yml``: ``${self:...}`` where the file itself says it, and options that are given.

``${opt:stage, 'dev'}`` is its default unless ``--parameter stage=...`` is given, and so are ``${param:...}`` and
``${env:...}``. What another file, a stack or the parameter store says is unresolved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from consumer.cli.lambda_import.found import as_mapping
from consumer.cli.lambda_import.intrinsics import Intrinsic, Unresolved
from consumer.cli.lambda_import.parameters import Parameters

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_FALLBACK = re.compile(r",\s*")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_GIVEN = ("opt", "param", "env")
_MAX_DEPTH = 20
_MAX_TEXT = 100_000
_PLACEHOLDER = re.compile("\x00([0-9]+)\x00")


class Variables:
    """The values of one service."""

    def __init__(self, document: Mapping[Any, Any], parameters: Parameters) -> None:
        self._document = document
        self._parameters = parameters
        self._being_read: set[str] = set()

    def resolve(self, value: Any, depth: int = 0) -> Any:
        """The value with its variables replaced; `Unresolved` where one of them is not known."""
        if depth > _MAX_DEPTH:
            return Unresolved(str(value), "${...}")
        if isinstance(value, Mapping):
            return {key: self.resolve(item, depth) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, depth) for item in value]
        if isinstance(value, Intrinsic):
            return value if value.name == "Sub" else Intrinsic(value.name, self.resolve(value.argument, depth))
        if isinstance(value, str) and "${" in value:
            return self._text(value, depth)
        return value

    def _text(self, text: str, depth: int) -> Any:
        """From the innermost variable outwards; one that is all of the text keeps its type."""
        if "\x00" in text:
            return Unresolved(text, text)  # the placeholders below would not be told from it
        missing: list[Unresolved] = []
        while len(text) < _MAX_TEXT and (match := _INNERMOST.search(text)):
            value = self._variable(match[1].strip(), depth)
            if match.span() == (0, len(text)) and not isinstance(value, str):
                return value
            if not isinstance(value, str | int | float):
                shown = value if isinstance(value, Unresolved) else Unresolved(match[0], match[0])
                missing.append(shown)
                value = f"\x00{len(missing) - 1}\x00"
            shown_value = str(value).lower() if isinstance(value, bool) else str(value)
            text = text[: match.start()] + shown_value + text[match.end() :]
        if not missing:
            return text if "${" not in text else Unresolved(text, text)
        whole = _PLACEHOLDER.sub(lambda match: missing[int(match[1])].text, text)
        resources = dict.fromkeys(name for one in missing for name in one.resources)
        return Unresolved(whole, whole, tuple(resources))

    def _variable(self, source: str, depth: int) -> Any:
        unresolved = Unresolved(_shown(source), _shown(source))
        for number, choice in enumerate(_FALLBACK.split(source)):
            quoted = _QUOTED.fullmatch(choice)
            if quoted:
                value: Any = quoted[1] if quoted[1] is not None else quoted[2]
            elif "\x00" in choice:
                return unresolved
            elif re.fullmatch(r"-?[0-9]+|true|false", choice):
                value = choice if choice[0] in "tf" else int(choice)
            else:
                value = self._named(choice, unresolved, depth)
            if isinstance(value, Unresolved):
                return value
            if value is not None:
                return self._fallback(source, value) if number else value
        return unresolved

    def _fallback(self, source: str, value: Any) -> Any:
        """A default of the file itself; of an option a deployment may have had another value."""
        kind, _, name = _FALLBACK.split(source)[0].partition(":")
        return self._parameters.default(name, value) if kind in _GIVEN else value

    def _named(self, choice: str, unresolved: Unresolved, depth: int) -> Any:
        """The value of one source; None when it is missing there, so that the next choice counts."""
        kind, colon, name = choice.partition(":")
        if kind == "self" and colon:
            return self._of_file(name, depth)
        if kind in _GIVEN and colon:
            return self._parameters.given(name)
        if choice == "sls:stage":
            stage = self._parameters.given("stage")
            written = stage or self._of_file("provider.stage", depth)
            return written or self._parameters.default("stage", "dev")
        return unresolved

    def _of_file(self, path: str, depth: int) -> Any:
        if path in self._being_read:
            return Unresolved(f"${{self:{path}}}", f"${{self:{path}}}")  # it leads back to itself
        self._being_read.add(path)
        try:
            value: Any = self._document
            for step in filter(None, path.split(".")):
                value = as_mapping(self.resolve(value, depth + 1) if isinstance(value, str) else value).get(step)
            return self.resolve(value, depth + 1)
        finally:
            self._being_read.discard(path)


def _shown(source: str) -> str:
    return f"${{{_PLACEHOLDER.sub('...', source)}}}"
