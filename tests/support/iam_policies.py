"""What a policy allows, as far as the policies of ``deploy`` go: actions, resources, and conditions on leading keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.support.iam_recorder import Ask

ROOT = Path(__file__).resolve().parents[2]
LEADING_KEYS = "dynamodb:LeadingKeys"
Statement = Mapping[str, Any]


def policy(name: str) -> list[Statement]:
    """The statements of a file in ``deploy/iam``."""
    found: list[Statement] = json.loads((ROOT / "deploy" / "iam" / name).read_text())["Statement"]
    return found


def actions(statement: Statement) -> set[str]:
    named = statement["Action"]
    return {named} if isinstance(named, str) else set(named)


def grants(statement: Statement, ask: Ask) -> bool:
    """Whether this statement alone allows it. ValueError for a condition that is not known here."""
    if ask.action not in actions(statement) or not fnmatchcase(ask.resource, statement["Resource"]):
        return False
    return all(_holds(operator, wanted, ask) for operator, wanted in statement.get("Condition", {}).items())


def _holds(operator: str, wanted: Mapping[str, Any], ask: Ask) -> bool:
    if set(wanted) == {LEADING_KEYS}:
        value = wanted[LEADING_KEYS]
        if operator == "ForAllValues:StringLike":
            return all(any(fnmatchcase(key, pattern) for pattern in value) for key in ask.leading_keys)
        if operator == "Null":
            return (not ask.leading_keys) == (value == "true")
    raise ValueError(f"{operator} on {', '.join(wanted)} is not known")


def require_least_privilege(statements: Iterable[Statement], wanted: Mapping[str, set[str]]) -> None:
    """These actions and no others, each on something; of the lease table only the application's own rows."""
    found = {statement["Sid"]: statement for statement in statements}
    assert {sid: actions(statement) for sid, statement in found.items()} == wanted
    for statement in found.values():
        assert statement["Effect"] == "Allow"
        assert statement["Resource"] != "*"
    condition = found["OwnLeaseRowsOnly"]["Condition"]
    assert len(condition["ForAllValues:StringLike"][LEADING_KEYS]) == 2
    # Without this a request that names no key at all would satisfy ForAllValues.
    assert condition["Null"] == {LEADING_KEYS: "false"}
