"""The parameters of a template, the variables of Terraform and the options of serverless: given, or their defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from consumer.cli.lambda_import.found import NotAMapping, Note


class Parameters:
    """Values by name. Those that are given win over the defaults of the file."""

    def __init__(self, given: Mapping[str, str] | None = None) -> None:
        self._given = dict(given or {})
        self._declared: set[str] = set()
        self._defaults: dict[str, str] = {}

    def declare(self, names: Iterable[Any]) -> None:
        """Names that the file knows."""
        self._declared.update(map(str, names))

    def given(self, name: str) -> str | None:
        """The value that was given for a name; None without one."""
        self._declared.add(name)
        return self._given.get(name)

    def default(self, name: str, value: Any, *, secret: bool = False) -> Any:
        """``value``, which the file has as the default of a name; `notes` tell that it was used, and not the value of
        a ``secret``."""
        self._defaults[name] = "" if secret else f" {value!r}"
        return value

    def notes(self) -> tuple[Note, ...]:
        """The defaults used since the last call: a deployment may have had other values."""
        notes = tuple(
            Note(f"parameter {name}", f"its default{shown} is used: --parameter {name}=VALUE when it was deployed "
                 "with another one")
            for name, shown in self._defaults.items()
        )  # fmt: skip
        self._defaults = {}
        return notes

    def require_known(self) -> None:
        """Raises NotAMapping when a value was given for a name that the file does not use: most likely a typing
        mistake, and the default would be taken silently."""
        unknown = sorted(set(self._given) - self._declared)
        if unknown:
            names = ", ".join(sorted(self._declared)) or "none"
            raise NotAMapping(f"uses no parameter {', '.join(unknown)}; those it uses: {names}")
