"""Every configuration that this project ships can be used as it is, and check-config has nothing to say about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from consumer.settings.load import load_with_warnings

ROOT = Path(__file__).parents[2]
CHART_VALUES = sorted((ROOT / "deploy" / "helm" / "stream-consumer" / "ci").glob("*.yaml"))
FILES = sorted([*(ROOT / "config").glob("*.yaml"), *(ROOT / "deploy").rglob("config.yaml")])
ENVIRONMENT = {
    "APPLICATION": "orders-projector",
    "AWS_REGION": "eu-west-1",
    "SOURCE_TABLE": "orders",
    "LEASE_TABLE": "stream-consumer",
    "DLQ_ARN": "arn:aws:sqs:eu-west-1:123456789012:orders-dlq",
    "OVERFLOW": "s3://orders-letters/orders-projector",
}


def warnings(text: str, folder: Path) -> list[str]:
    """What check-config would warn of; ConfigError when the file is refused. The images' /app is ``folder`` here."""
    file = folder / "config.yaml"
    file.write_text(re.sub(r"(?m)^(\s+path: )(/app|\.\.?)(\s|$)", rf"\g<1>{folder}\3", text))
    return [str(warning) for warning in load_with_warnings(file, ENVIRONMENT)[1]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_configuration_has_neither_errors_nor_warnings(path: Path, tmp_path: Path) -> None:
    assert warnings(path.read_text(), tmp_path) == []


def test_neither_has_that_of_the_readme(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```yaml\n(# consumer.yaml.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert warnings(sample, tmp_path) == []


@pytest.mark.parametrize("path", CHART_VALUES, ids=lambda path: path.name)
def test_the_values_of_the_chart_hold_one_without_warnings(path: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(path.read_text())["config"]
    assert warnings(yaml.safe_dump({"http": {"host": "0.0.0.0"}, **config}), tmp_path) == []


def test_a_warning_would_be_seen(tmp_path: Path) -> None:
    text = (ROOT / "config" / "minimal.yaml").read_text()
    assert "retries never end" in warnings(text.replace("max_retry_attempts: 5", "max_retry_attempts: -1"), tmp_path)[0]
