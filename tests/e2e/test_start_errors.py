"""What a user sees when something is wrong at the start: one clear line, the right exit code, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Aws
from tests.e2e.fleet import ALONE, ROOT, Fleet, wait_until
from tests.e2e.hurt import impatient
from tests.support.authorities import NONE_ELSE


def run(fleet: Fleet, config: dict[str, Any] | str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and stderr of ``run`` with this config. Whatever it fails for, its last event says so."""
    path = fleet.folder / "config.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    path.chmod(0o600)
    done = subprocess.run(
        [sys.executable, "-m", "consumer", "run", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={
            **os.environ,
            **NONE_ELSE,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            **(environment or {}),
        },
    )
    assert "Traceback" not in done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last["level"], last["exit_code"]) == ("daemon.start_failed", "critical", done.returncode)
    assert last["hint"]
    assert f"stream-consumer: {last['error']}\n" == done.stderr or last.get("problems") or "exception" in last
    return done.returncode, done.stderr


def test_missing_table(fleet: Fleet) -> None:
    """A table that is not there: 78, and its name."""
    code, error = run(fleet, fleet.config(http={"port": 0}, source={"table": "no-such-table"}))
    assert (code, error.count("\n")) == (78, 1)
    assert "no-such-table" in error


def test_table_without_a_stream(aws: Aws, fleet: Fleet) -> None:
    """A table whose stream is not enabled: 78, and how to enable it."""
    table = aws.table(stream=False)
    code, error = run(fleet, fleet.config(http={"port": 0}, source={"table": table}))
    assert (code, error.count("\n")) == (78, 1)
    assert table in error
    assert "stream" in error.lower()


def test_wrong_stream_arn(fleet: Fleet) -> None:
    """A stream ARN that does not exist: 78, and the ARN."""
    config = fleet.config(http={"port": 0})
    del config["source"]["table"]
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/gone/stream/2020-01-01T00:00:00.000"
    config["source"]["stream_arn"] = arn
    code, error = run(fleet, config)
    assert (code, error.count("\n")) == (78, 1)
    assert arn in error


def test_missing_lease_table(fleet: Fleet) -> None:
    """No lease table and no leave to create it: 78, and the command that creates it."""
    code, error = run(fleet, fleet.config(http={"port": 0}, leases={"create_table": False}))
    assert (code, error.count("\n")) == (78, 1)
    assert "stream-consumer init" in error


def test_missing_queue(fleet: Fleet) -> None:
    """A dead-letter queue that does not exist: 78, and its name."""
    fleet.queue_arn = "arn:aws:sqs:us-east-1:000000000000:no-such-queue"
    code, error = run(fleet, fleet.config(http={"port": 0}))
    assert (code, error.count("\n")) == (78, 1)
    assert "no-such-queue" in error


def test_no_credentials(fleet: Fleet) -> None:
    """No credentials anywhere: 78, and what to set."""
    environment = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_CONFIG_FILE": "/dev/null"}
    code, error = run(
        fleet, fleet.config(http={"port": 0}), {**environment, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    )
    assert (code, error.count("\n")) == (78, 1)
    assert "credentials" in error


LAMBDA: dict[str, str] = {}
PYTHON = {"kind": "python"}
INLINE = {"kind": "python", "isolation": "inline"}


@pytest.mark.parametrize(
    ("kind", "module", "target", "says"),
    [
        (LAMBDA, "x = 1\n", "broken:handler", "handler"),
        (LAMBDA, "import nowhere_to_be_found\n", "broken:handler", "nowhere_to_be_found"),
        (LAMBDA, "raise RuntimeError('boom at import')\n", "broken:handler", "boom at import"),
        (LAMBDA, "import sys\nsys.exit(3)\n", "broken:handler", "SystemExit"),
        (LAMBDA, "handler = 42\n", "broken:handler", "callable"),
        (LAMBDA, "def handler(:\n", "broken:handler", "SyntaxError"),
        (LAMBDA, "", "missing_module:handler", "missing_module"),
        (PYTHON, "raise RuntimeError('boom at import')\n", "broken:handler", "boom at import"),
        (INLINE, "import sys\nsys.exit(3)\n", "broken:handler", "SystemExit"),
        (INLINE, "def handler(:\n", "broken:handler", "SyntaxError"),
    ],
)
def test_handler_that_does_not_import(
    kind: dict[str, str], module: str, target: str, says: str, fleet: Fleet, tmp_path: Path
) -> None:
    """A handler that cannot be imported: 78 and one line with the reason, before anything is owned."""
    (tmp_path / "broken.py").write_text(module)
    handler = {"target": target, "path": str(tmp_path), **kind}
    code, error = run(fleet, fleet.config(http={"port": 0}, handler=handler))
    assert (code, error.count("\n")) == (78, 1), error
    assert says in error


@pytest.mark.parametrize("kind", [LAMBDA, PYTHON, INLINE])
def test_a_handler_import_that_wants_the_network_is_waited_for(
    kind: dict[str, str], fleet: Fleet, tmp_path: Path
) -> None:
    """Its service comes up a moment later than the daemon; no restart is needed."""
    (tmp_path / "late.py").write_text(
        "import os\n"
        "if not os.path.exists(os.path.join(os.path.dirname(__file__), 'service_is_up')):\n"
        "    raise ConnectionRefusedError('no service yet')\n"
        "def handler(event, context): pass\n"
    )
    worker = fleet.start("w", handler={"target": "late:handler", "path": str(tmp_path), **kind})
    wait_until(lambda: any(e["event"] == "start.waiting" for e in worker.events()), 20, "it waits for the handler")
    (tmp_path / "service_is_up").touch()
    wait_until(lambda: any(e["event"] == "daemon.started" for e in worker.events()), 30, "it has started")


@pytest.mark.parametrize(
    ("overrides", "environment", "says"),
    [
        ({"handler": {"target": "never:handler"}}, {}, "no service"),
        ({}, {"AWS_ACCESS_KEY_ID": "", "AWS_EC2_METADATA_DISABLED": "false"}, "no AWS credentials were found"),
        ({"aws": {"endpoints": {"dynamodb": "http://127.0.0.1:9"}}}, {}, "DescribeTable"),
    ],
    ids=["handler", "credentials", "table"],
)
def test_what_does_not_pass_in_time_ends_with_69(
    overrides: dict[str, Any], environment: dict[str, str], says: str, fleet: Fleet, tmp_path: Path
) -> None:
    """With a deadline of two seconds instead of a minute."""
    (tmp_path / "never.py").write_text("raise ConnectionRefusedError('no service')")
    if "handler" in overrides:
        overrides = {"handler": {**overrides["handler"], "path": str(tmp_path)}}
    nowhere = {
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9",
        **impatient(tmp_path, "START_DEADLINE", 2.0),
    }
    code, error = run(fleet, fleet.config(http={"port": 0}, **overrides), {**nowhere, **environment})
    assert (code, error.count("\n")) == (69, 1), error
    assert says in error


def test_bad_yaml_names_every_problem_at_once(fleet: Fleet) -> None:
    """Every mistake with file and line, exit 78."""
    source, handler = "source: {table: orders, on_gpa: halt}", "handler: {target: 'm:h', timeout: 10}"
    text = f"application: a b\n{source}\n{handler}\nbatch: {{batch_size: 0}}\n"
    code, error = run(fleet, text)
    assert code == 78
    assert error.count("config.yaml:") == 4
    assert "on_gap" in error


def test_the_port_is_taken(fleet: Fleet) -> None:
    """A health port in use: 78, and the address."""
    worker = fleet.start("first")
    wait_until(worker.status, 20, "the first daemon is up")
    code, error = run(fleet, fleet.config(http={"port": worker.port}))
    assert (code, error.count("\n")) == (78, 1)
    assert str(worker.port) in error


def test_signals_during_the_start(fleet: Fleet) -> None:
    """A reload waits for the end of the start; a stop that comes while dependencies are waited for ends at once and
    gracefully."""
    worker = fleet.start("w", aws={"endpoints": dict.fromkeys(("dynamodb", "dynamodb_streams"), "http://127.0.0.1:9")})
    wait_until(lambda: any(e["event"] == "start.waiting" for e in worker.events()), 20, "it waits for the stream")
    worker.send(signal.SIGHUP)
    wait_until(lambda: any(e["event"] == "signal.received" for e in worker.events()), 10, "it is heard")
    started = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    assert time.monotonic() - started < 10
    effects = [e["effect"] for e in worker.events() if e["event"] == "signal.received"]
    assert effects == ["reload, once the start is complete", "drain"]


def test_sigterm_as_pid_1_right_after_the_start_exits_0(fleet: Fleet) -> None:
    """The kernel drops a signal that PID 1 has no handler for; the handler is there before anything slow is imported,
    and from then on a stop ends the process at once, although no Python code of the daemon has run yet."""
    worker = fleet.start("first", under=ALONE)
    inner = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
    wait_until(lambda: inner.read_text().split(), 10, "the process in its namespace")
    pid = int(inner.read_text().split()[0])
    wait_until(lambda: catches(pid, signal.SIGTERM), 10, "the handler is installed")
    os.kill(pid, signal.SIGTERM)
    assert worker.wait(10) == 0
    assert worker.events() == []


def catches(pid: int, signum: int) -> bool:
    """Whether a process has a handler for the signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signum - 1) & 1)


def test_a_bug_ends_with_70_and_its_stack_in_the_log(fleet: Fleet, tmp_path: Path) -> None:
    """An exception nobody expected: one line on stderr, the stack as a log event, exit 70."""
    (tmp_path / "sitecustomize.py").write_text(
        "import consumer.handlers.build as build\n"
        "def broken(settings):\n"
        "    raise ZeroDivisionError('a bug')\n"
        "build.build_handler = broken\n"
    )
    code, error = run(fleet, fleet.config(http={"port": 0}), {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert (code, error.count("\n")) == (70, 1)
    assert "ZeroDivisionError: a bug" in error
