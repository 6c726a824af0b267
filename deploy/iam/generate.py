"""Makes the IAM policies of this folder, and the tables of docs/iam.md, from permissions.yaml.

python -m deploy.iam.generate
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).resolve().parent
PAGE: Final = FOLDER.parents[1] / "docs" / "iam.md"
BEGIN: Final = "<!-- made from deploy/iam/permissions.yaml by `python -m deploy.iam.generate` -->"
END: Final = "<!-- end of what is made -->"


def generated() -> dict[Path, str]:
    """Every file that is made, with its content."""
    permissions = yaml.safe_load((FOLDER / "permissions.yaml").read_text(encoding="utf-8"))
    statements, policies = permissions["statements"], permissions["policies"]
    files = {
        FOLDER / name: policy_json([statement(sid, statements[sid]) for sid in policy["statements"]])
        for name, policy in policies.items()
    }
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    files[PAGE] = f"{before}{BEGIN}\n\n{tables(statements, policies)}\n{END}{after}"
    return files


def statement(sid: str, entry: dict[str, Any]) -> dict[str, Any]:
    named = sorted(entry["actions"])
    made = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": named[0] if len(named) == 1 else named,
        "Resource": entry["resource"],
    }
    return made | ({"Condition": entry["condition"]} if "condition" in entry else {})


def policy_json(statements: list[dict[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2) + "\n"


def tables(statements: dict[str, Any], policies: dict[str, Any]) -> str:
    lines = ["| policy | for | statements |", "| --- | --- | --- |"]
    for name, policy in policies.items():
        beside = ", beside the daemon's" if policy.get("beside") else ""
        sids = ", ".join(f"`{sid}`" for sid in policy["statements"])
        lines.append(f"| [`{name}`](../deploy/iam/{name}){beside} | {policy['for']} | {sids} |")
    lines += ["", "| statement | action | on | why |", "| --- | --- | --- | --- |"]
    for sid, entry in statements.items():
        on = entry["resource"].split(":", 5)[5]
        lines += [f"| `{sid}` | `{one}` | `{on}` | {entry['actions'][one]} |" for one in sorted(entry["actions"])]
    return "\n".join(lines) + "\n"


def main() -> None:
    for path, content in generated().items():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
