"""The Dockerfile, really built, and the daemon in it, really run: with buildah, which needs no container engine.

Its base is made with debootstrap, because no registry of images is asked. The container shares this machine's network,
as buildah's chroot isolation does, so that the daemon reaches the local AWS. What this does not show: process 1, a
read-only root file system, limits, and the HEALTHCHECK being called by an engine. `make soak` runs it: 40 CPU seconds,
most of them in debootstrap, which needs Debian's mirror, and pip.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from demo.local_aws import LocalAws, free_port
from tests.e2e.fleet import ROOT

CERTIFICATES = "/etc/ssl/certs"  # pip in the build trusts what this machine trusts
BASE = """\
FROM scratch
ADD rootfs.tar /
RUN ["ln", "-s", "/usr/bin/python3", "/usr/bin/python"]
"""
# As docs/platforms/container.md tells users.
DERIVED = """\
FROM localhost/stream-consumer
COPY config.yaml /etc/stream-consumer/config.yaml
COPY myapp /app/myapp
"""
HANDLER = """\
def handler(event, context):
    for record in event["Records"]:
        print("handled", record["dynamodb"]["Keys"]["pk"]["S"])
"""
CONFIG = """\
application: orders-projector
source: {{table: orders}}
handler: {{target: "myapp.handlers:handler", path: /app, timeout: 20s}}
retry: {{max_retry_attempts: 5}}
on_failure: {{destination: "s3://letters/orders"}}
leases: {{table: leases, create_table: true, duration: 2s}}
http: {{host: 127.0.0.1, port: {port}}}
"""

MISSING = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)}: the image is not built"),
    pytest.mark.skipif(os.getuid() != 0, reason="debootstrap and buildah's chroot isolation need root"),
]

Buildah = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("image")


def command(folder: Path, *arguments: str) -> list[str]:
    places = ["--root", str(folder / "store"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    return ["buildah", *places, *arguments]


ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot"}


@pytest.fixture(scope="module")
def buildah(folder: Path) -> Iterator[Buildah]:
    """``buildah(arguments)``: what it prints; its images and containers end with the module."""

    def call(*arguments: str) -> str:
        result = subprocess.run(
            command(folder, *arguments), env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, timeout=1500
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.strip()

    yield call
    call("rm", "--all")  # what is mounted cannot be deleted
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(buildah: Buildah, folder: Path) -> str:
    """The image of the Dockerfile, on a Debian with Python and nothing else."""
    wanted = "--include=python3,python3-venv,python3-pip,ca-certificates"
    bootstrap = ["debootstrap", "--variant=minbase", wanted, "bookworm", str(folder / "rootfs")]
    result = subprocess.run(bootstrap, capture_output=True, text=True, timeout=1500)
    if result.returncode != 0:
        pytest.skip(f"debootstrap cannot make a base image here: {(result.stdout + result.stderr)[-300:]}")
    archive = ["tar", "-C", str(folder / "rootfs"), "--exclude=./dev", "-cf", str(folder / "rootfs.tar"), "."]
    subprocess.run(archive, check=True, timeout=120)
    shutil.rmtree(folder / "rootfs")
    (folder / "Base").write_text(BASE)
    buildah("bud", "--file", "Base", "--tag", "localhost/base", ".")
    (folder / "rootfs.tar").unlink()
    trust = f"{CERTIFICATES}:{CERTIFICATES}:ro"
    # HEALTHCHECK is in Docker's format only.
    options = ["--format", "docker", "--build-arg", "BASE_IMAGE=localhost/base", "--build-arg", "REVISION=abc"]
    buildah("bud", *options, "--volume", trust, "--tag", "localhost/stream-consumer", str(ROOT))
    return "localhost/stream-consumer"


def configuration(buildah: Buildah, image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    return found


def test_the_image_says_how_it_is_run(buildah: Buildah, image: str) -> None:
    config = configuration(buildah, image)
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["stream-consumer"]
    assert config["Cmd"] == ["run", "--config", "/etc/stream-consumer/config.yaml"]
    assert config["Healthcheck"]["Test"] == ["CMD", "stream-consumer", "health", "--config", config["Cmd"][2]]
    assert (config["StopSignal"], list(config["ExposedPorts"])) == ("SIGTERM", ["9464/tcp"])
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"


def test_the_user_can_write_nowhere_but_in_tmp_and_finds_no_installer(buildah: Buildah, image: str) -> None:
    container = buildah("from", image)

    def run(*arguments: str) -> str:
        return buildah("run", container, "--", *arguments)

    assert run("stream-consumer", "--version").startswith("stream-consumer, version ")
    assert run("id", "-u") == "10001"
    writable = "find / -xdev -type d -writable -not -path '/proc/*' 2>/dev/null || true"
    assert set(run("sh", "-c", writable).split()) <= {"/tmp", "/var/tmp", "/run/lock"}
    assert "pip" not in run("ls", "/opt/stream-consumer/bin").split()
    buildah("rm", container)


def descendants(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")  # of each thread: buildah starts processes from any
    children = [int(child) for each in lists for child in each.read_text().split()]
    return [*children, *(deeper for child in children for deeper in descendants(child))]


def daemon_of(pid: int) -> int:
    """The first process of the container that ``buildah run`` of this process id has started."""
    for found in descendants(pid):
        words = Path(f"/proc/{found}/cmdline").read_bytes().split(b"\0")
        if words[:1] != [b"buildah-chroot-exec"] and any(word.endswith(b"bin/stream-consumer") for word in words):
            return found
    raise AssertionError("the daemon does not run")


def until(condition: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def test_an_image_with_a_handler_handles_records_is_healthy_and_stops(
    buildah: Buildah, image: str, folder: Path, local_aws: LocalAws
) -> None:
    port = free_port()
    (folder / "myapp").mkdir()
    (folder / "myapp" / "handlers.py").write_text(HANDLER)
    (folder / "config.yaml").write_text(CONFIG.format(port=port))
    (folder / "Derived").write_text(DERIVED)
    buildah("bud", "--format", "docker", "--file", "Derived", "--tag", "localhost/orders-projector", ".")
    container = buildah("from", "localhost/orders-projector")
    credentials = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    settings = [f"--env={name}={value}" for name, value in credentials.items()]
    settings.append(f"--env=AWS_ENDPOINT_URL={local_aws.endpoint}")

    def client(service: str) -> Any:
        return botocore.session.get_session().create_client(
            service,
            region_name="eu-west-1",
            endpoint_url=local_aws.endpoint,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )

    dynamodb = client("dynamodb")
    dynamodb.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    client("s3").create_bucket(Bucket="letters", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    dynamodb.put_item(TableName="orders", Item={"pk": {"S": "order-0001"}})

    config = configuration(buildah, "localhost/orders-projector")
    file = config["Cmd"][2]
    assert buildah("run", *settings, container, "--", "stream-consumer", "check-config", "--strict", file).endswith(
        "ok"
    )
    log = folder / "daemon.log"
    start = [*config["Entrypoint"], *config["Cmd"]]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(folder, "run", *settings, container, "--", *start),
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: "handled order-0001" in log.read_text(), log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            assert answer.status == 200
        buildah("run", container, "--", *config["Healthcheck"]["Test"][1:])
        os.kill(daemon_of(process.pid), signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        if process.poll() is None:
            for pid in [process.pid, *descendants(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait(30)
    assert "daemon.stopped" in log.read_text()
