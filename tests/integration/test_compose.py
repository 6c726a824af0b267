"""``deploy/compose``: its file by the Compose specification's schema, and its parts run without a container engine.

No engine runs here, so what Compose makes of the file is not tested. What is: the table, the queue and the bucket are
made by ``setup.py`` on the embedded AWS, and the daemon handles a record there with ``config.yaml`` and ``myapp``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml

from demo.local_aws import SERVICES, LocalAws, find_local_aws_python

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    return found


def test_the_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*check, str(COMPOSE / "compose.yaml")], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_all_files_that_it_names_are_there(services: dict[str, Any]) -> None:
    for service in services.values():
        build = service.get("build")
        if isinstance(build, dict):
            context = COMPOSE / build["context"]
            assert (context / build["dockerfile"]).is_file()
        elif build:
            assert (COMPOSE / build / "Dockerfile").is_file()
        for volume in service.get("volumes", ()):
            source, _, mode = volume.split(":")
            assert (COMPOSE / source).exists()
            assert mode == "ro"


def test_the_image_of_the_local_aws_installs_what_is_locked(services: dict[str, Any]) -> None:
    build = services["aws"]["build"]
    text = (COMPOSE / build["context"] / build["dockerfile"]).read_text()
    for copied in re.findall(r"(?m)^COPY (\S+) ", text):
        assert (COMPOSE / build["context"] / copied).is_file()
    assert '"--require-hashes"' in text
    assert services["aws"]["environment"]["SERVICES"] == ",".join(SERVICES)


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_worker_is_confined_and_has_time_to_hand_over(services: dict[str, Any]) -> None:
    worker = services["worker"]
    assert worker["read_only"] is True
    assert worker["tmpfs"] == ["/tmp"]
    assert worker["cap_drop"] == ["ALL"]
    assert worker["security_opt"] == ["no-new-privileges:true"]
    config = yaml.safe_load((COMPOSE / "config.yaml").read_text())
    assert int(worker["stop_grace_period"].removesuffix("s")) > int(config["shutdown"]["grace"].removesuffix("s")) + 5
    assert config["http"] == {"host": "0.0.0.0", "port": 9464}


def test_setup_and_the_worker_work_on_the_local_aws(services: dict[str, Any], tmp_path: Path) -> None:
    config = (COMPOSE / "config.yaml").read_text()
    file = tmp_path / "config.yaml"
    file.write_text(config.replace("/app", str(COMPOSE)).replace("0.0.0.0", "127.0.0.1").replace("9464", "0"))
    with LocalAws(find_local_aws_python()) as aws:
        given = services["worker"]["environment"]
        assert given == services["setup"]["environment"]
        plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment = {**plain, **given, "AWS_ENDPOINT_URL": aws.endpoint, "PYTHONPATH": str(ROOT)}
        for _ in range(2):  # again, as after a restart
            setup = [str(find_local_aws_python()), str(COMPOSE / "setup.py")]
            made = subprocess.run(setup, env=environment, capture_output=True, text=True, timeout=60)
            assert made.returncode == 0, made.stderr
        client = botocore.session.get_session().create_client(
            "dynamodb",
            region_name=given["AWS_REGION"],
            endpoint_url=aws.endpoint,
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        client.put_item(TableName="orders", Item={"pk": {"S": "order-0001"}})
        log = tmp_path / "log"
        with log.open("wb") as output:
            run = [sys.executable, "-m", "consumer", "run", "--config", str(file)]
            daemon = subprocess.Popen(run, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while "INSERT {'pk': {'S': 'order-0001'}}" not in log.read_text():
                assert daemon.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            daemon.terminate()
            assert daemon.wait(40) == 0, log.read_text()
        finally:
            daemon.kill()
            daemon.wait()
