"""What every policy of ``deploy`` has to be, and what the docs show of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Statement = Mapping[str, Any]


def policy(name: str) -> list[Statement]:
    """The statements of a file in ``deploy/iam``."""
    found: list[Statement] = json.loads((ROOT / "deploy" / "iam" / name).read_text())["Statement"]
    return found


def actions(statement: Statement) -> set[str]:
    named = statement["Action"]
    return {named} if isinstance(named, str) else set(named)


def require_least_privilege(statements: Iterable[Statement], wanted: Mapping[str, set[str]]) -> None:
    """These actions and no others, each on something; of the lease table only the application's own rows."""
    found = {statement["Sid"]: statement for statement in statements}
    assert {sid: actions(statement) for sid, statement in found.items()} == wanted
    for statement in found.values():
        assert statement["Effect"] == "Allow"
        assert statement["Resource"] != "*"
    condition = found["OwnLeaseRowsOnly"]["Condition"]
    assert len(condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]) == 2
    # Without this a request that names no key at all would satisfy ForAllValues.
    assert condition["Null"] == {"dynamodb:LeadingKeys": "false"}


def shown_in_docs() -> tuple[list[Any], list[Statement]]:
    """The blocks of JSON in docs/iam.md, and the statements in them."""
    blocks = [
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "iam.md").read_text(), re.DOTALL)
    ]
    return blocks, [one for block in blocks for one in (block if isinstance(block, list) else block["Statement"])]
