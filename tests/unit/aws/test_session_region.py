"""Which region is asked: the SDK for Python alone does not read AWS_REGION."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.aws.session import AwsSession


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [
        (None, {"AWS_REGION": "eu-north-1"}, "eu-north-1"),
        (None, {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "us-west-2"}, "eu-north-1"),
        (None, {"AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        (None, {"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        (None, {"AWS_PROFILE": "there"}, "sa-east-1"),
        (None, {"AWS_PROFILE": "there", "AWS_REGION": "eu-north-1"}, "eu-north-1"),
        ("ap-south-1", {"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "us-west-2"}, "ap-south-1"),
    ],
)
async def test_the_region_of_every_client(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    configured: str | None,
    environment: dict[str, str],
    expected: str,
) -> None:
    (tmp_path / "config").write_text("[profile there]\nregion = sa-east-1\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    given = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in (given | environment).items():
        monkeypatch.setenv(name, value)
    async with AwsSession(configured, {}) as session:
        client = await session.client("dynamodb")
        assert client.meta.region_name == expected
        assert expected in client.meta.endpoint_url
