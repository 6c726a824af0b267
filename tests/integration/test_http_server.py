"""The health server over real sockets, with clients that mean no good, and ``stream-consumer health`` against it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from consumer.cli.health import ask, health
from consumer.domain.errors import StreamConsumerError
from consumer.operate.health_server import MAX_CONNECTIONS, CannotListen, HealthServer
from consumer.operate.metrics import Metrics
from consumer.operate.status import START_STEPS, ShardStatus, Status, StatusBoard
from consumer.worker.control_thread import Watchdog
from tests.support.served import LIFE, Running, drain


@pytest.fixture
def running() -> Iterator[Running]:
    server = Running()
    try:
        yield server
    finally:
        server.stop()


def test_metrics(running: Running) -> None:
    running.metrics.gaps.inc()
    status, head, body = running.get("/metrics")
    assert status == 200
    assert "content-type: text/plain; version=0.0.4; charset=utf-8" in head
    assert "stream_consumer_gaps" in {family.name for family in text_string_to_metric_families(body.decode())}
    _, head, body = running.get("/metrics", headers="Accept: application/openmetrics-text; version=1.0.0\r\n")
    assert "content-type: application/openmetrics-text" in head
    assert body.endswith(b"# EOF\n")


def test_health_and_readiness(running: Running) -> None:
    assert running.get("/healthz")[::2] == (200, b"ok\n")
    assert running.get("/readyz")[0] == 503
    for step in START_STEPS:
        running.board.reached(step)
    assert running.get("/readyz")[::2] == (200, b"ready\n")
    running.board.task_died("session renewal", "a\nb")
    assert running.get("/healthz")[::2] == (503, b"task session renewal died: a b\n")
    assert running.get("/readyz")[0] == 200


def test_a_wedged_main_loop_is_answered_from_the_other_thread(running: Running) -> None:
    watchdog = Watchdog(lambda: 1, running.board, wedged_after=2)
    for _ in range(3):  # this thread, as the main loop, makes no progress
        running.loop.call_soon_threadsafe(watchdog.tick)
    assert running.get("/healthz")[::2] == (503, b"wedged: no progress for 2.0s (limit 2s)\n")
    assert json.loads(running.get("/status.json")[2])["progress_age"] == 2.0


def test_the_page_is_static_and_strict(running: Running) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, head, body = running.get(path)
        assert status == 200
        assert f"content-type: {kind}; charset=utf-8" in head
        assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in head
        assert "unsafe" not in head
        assert "nosniff" in head
        for outside in (b"http://", b"https://", b"innerHTML", b"http-equiv", b"<style", b" style="):
            assert outside not in body.replace(b"http://www.w3.org/2000/svg", b""), (path, outside)


def test_status_json(running: Running) -> None:
    shard = ShardStatus("shardId-1", "open", owner="me", mine=True, lag=1.5)
    running.board.publish(Status("orders<b>", "orders", "host/1/x", shards=(shard,), totals={"handled": 7}))
    _, head, body = running.get("/status.json?x=1")
    assert "application/json" in head
    assert json.loads(body)["shards"][0]["lag"] == 1.5


def header(head: str, name: str) -> str:
    return next(line.partition(": ")[2] for line in head.split("\r\n") if line.startswith(f"{name}: "))


@pytest.mark.parametrize("path", ["/", "/page.js", "/status.json"])
def test_what_a_client_has_already_is_not_sent_again(running: Running, path: str) -> None:
    running.board.publish(Status("orders", "orders", "host/1/x", updated_at=1_764_000_000.0))
    _, head, body = running.get(path)
    tag = header(head, "etag")
    assert "no-cache" in head
    for known in (tag, f'"other", {tag}', tag.removeprefix("w/"), "*"):
        status, again, empty = running.get(path, headers=f"If-None-Match: {_case(tag, known)}\r\n")
        assert (status, empty) == (304, b""), known
        assert header(again, "etag") == tag
    assert running.get(path, headers='If-None-Match: "other"\r\n')[2] == body
    assert running.get(path, "HEAD", f"If-None-Match: {_case(tag, tag)}\r\n")[0] == 304


def _case(tag: str, text: str) -> str:
    """``get`` gives the head in lower case; the mark of a weak tag is a capital letter."""
    return text.replace(tag, tag.replace("w/", "W/"))


def test_a_snapshot_that_says_the_same_is_known_but_its_time_is_told(running: Running) -> None:
    running.board.publish(Status("orders", "orders", "host/1/x", updated_at=1_764_000_000.0))
    _, head, _ = running.get("/status.json")
    known = f"If-None-Match: {_case(header(head, 'etag'), header(head, 'etag'))}\r\n"
    running.board.publish(Status("orders", "orders", "host/1/x", updated_at=1_764_000_060.0))
    status, head, _ = running.get("/status.json", headers=known)
    assert (status, header(head, "last-modified")) == (304, "mon, 24 nov 2025 16:01:00 gmt")
    running.board.publish(Status("orders", "orders", "host/1/x", updated_at=1_764_000_061.0, letters_waiting=1))
    assert running.get("/status.json", headers=known)[0] == 200


def test_head_has_the_headers_and_no_body(running: Running) -> None:
    status, head, body = running.get("/healthz", "HEAD")
    assert (status, body) == (200, b"")
    assert "content-length: 3" in head


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods(running: Running, method: str) -> None:
    status, head, _ = running.get("/metrics", method)
    assert status == 405
    assert "allow: get, head" in head


def test_a_post_with_a_large_body_is_cut_off(running: Running) -> None:
    started = time.monotonic()
    answer = running.raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 5_000_000)
    assert answer == b"" or answer.split()[1] in (b"405", b"431")
    assert time.monotonic() - started < LIFE + 1


@pytest.mark.parametrize(
    "path",
    [
        "/metrics/",
        "//metrics",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/healthz/..",
        "/debug",
        "/%00",
        "/metrics%2f",
    ],
)
def test_everything_else_is_not_found(running: Running, path: str) -> None:
    status, head, body = running.get(path)
    assert status in (400, 404)
    assert b"root:" not in body
    if status == 404:
        assert "server: stream-consumer\r\n" in head


def test_a_megabyte_of_header(running: Running) -> None:
    for flood in (b"X: " + b"a" * 1_000_000 + b"\r\n", b"".join(b"X-%d: abcdef\r\n" % n for n in range(60_000))):
        answer = running.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + flood + b"\r\n")
        assert answer == b"" or answer.split()[1] in (b"400", b"431"), answer[:60]
    assert running.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    "garbage", [b"\x00" * 500 + b"\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_garbage(running: Running, garbage: bytes) -> None:
    running.raw(garbage)
    assert running.get("/healthz")[0] == 200


def test_slow_clients_are_ended_and_hold_up_no_others(running: Running) -> None:
    with running.connect() as silent, running.connect() as slow:
        started = time.monotonic()
        ended = False
        for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 200:
            try:
                slow.send(bytes([byte]))
            except ConnectionError:
                ended = True
                break
            assert running.get("/healthz")[0] == 200
            time.sleep(0.05)
        assert ended
        assert drain(silent) == b""
        assert time.monotonic() - started < LIFE + 2


def test_a_client_that_does_not_read(running: Running) -> None:
    for number in range(3000):
        running.metrics.shard(f"shardId-{number:020}").lag_seconds = 1
    with running.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert running.get("/healthz")[0] == 200
        started, reset = time.monotonic(), False
        while not reset and time.monotonic() - started < LIFE + 2:
            time.sleep(0.05)
            try:
                client.sendall(b"x")
            except ConnectionError:
                reset = True
        assert reset, "the connection takes bytes although its time is over"


@pytest.mark.parametrize("held", [MAX_CONNECTIONS, 10 * MAX_CONNECTIONS])
def test_idle_connections_never_make_a_probe_fail(running: Running, held: int) -> None:
    """The oldest makes room for one more."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(running.connect()) for _ in range(held)]
        for _ in range(10):
            assert running.get("/healthz")[0] == 200
        assert drain(idle[0]) == b""


def test_a_thousand_connections_that_come_again_and_again(running: Running) -> None:
    """Whoever is ended connects anew at once, as a broken client does. One probe of three is enough: so many in a row
    have to fail until a scheduler acts."""

    def is_answered() -> bool:
        try:
            return running.get("/healthz")[::2] == (200, b"ok\n")
        except (OSError, IndexError):  # ended before its request was read
            return False

    hold = (
        "import asyncio, sys\n"
        "async def hold():\n"
        "    while True:\n"
        "        try:\n"
        "            reader, writer = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]))\n"
        "            await reader.read(1)\n"
        "            writer.close()\n"
        "        except OSError:\n"
        "            pass\n"
        "async def main():\n"
        "    holders = [asyncio.create_task(hold()) for _ in range(1000)]\n"
        "    await asyncio.sleep(0)\n"
        "    print('started', flush=True)\n"
        "    await asyncio.wait(holders)\n"
        "asyncio.run(main())\n"
    )
    attacker = subprocess.Popen([sys.executable, "-c", hold, str(running.port)], stdout=subprocess.PIPE, text=True)
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "started\n"
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            assert any(is_answered() for _ in range(3))
    finally:
        attacker.kill()
        attacker.wait()


_AT_THE_LIMIT = """
import asyncio, os, resource, sys, urllib.request
from consumer.operate.health_server import HealthServer
from consumer.operate.logs import configure_logging
from consumer.operate.metrics import Metrics
from consumer.operate.status import StatusBoard

async def main():
    configure_logging("info", "json")
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    server = HealthServer(StatusBoard(), Metrics(), host="127.0.0.1", port=0)
    await server.start()
    print("port", server.port, flush=True)
    await asyncio.sleep(0.1)
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        print("full", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while held:
        os.close(held.pop())
    print("free", flush=True)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def test_probes_are_answered_at_the_limit_of_descriptors() -> None:
    """One after the other and several at a time, also beside idle connections; the log says so once."""
    with subprocess.Popen(
        [sys.executable, "-c", _AT_THE_LIMIT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[1])
        assert process.stdout.readline() == "full\n"
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                for _ in range(5):
                    assert ask("127.0.0.1", port)[0] == 0
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
            process.stdin.write("\n")
            process.stdin.flush()
            lines = []
            while (line := process.stdout.readline()) != "free\n":
                lines.append(line)
            for _ in range(20):
                assert ask("127.0.0.1", port)[0] == 0
        rest, _ = process.communicate("\n", timeout=10)
        events = [json.loads(line)["event"] for line in [*lines, *rest.splitlines()] if line.strip()]
        assert events == ["http.descriptors_exhausted"]


def test_one_request_a_connection(running: Running) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = running.raw(request * 3)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in answer.lower()


async def test_an_address_in_use_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = HealthServer(StatusBoard(), Metrics(), host="127.0.0.1", port=port)
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: ") as caught:
            await server.start()
    assert isinstance(caught.value, StreamConsumerError)
    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)
    await server.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a..b"])
async def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(CannotListen):
        await HealthServer(StatusBoard(), Metrics(), host=host, port=0).start()


async def test_close_frees_the_port_and_is_idempotent() -> None:
    server = HealthServer(StatusBoard(), Metrics(), host="127.0.0.1", port=0)
    await server.start()
    port = server.port
    await server.close()
    await server.close()
    again = HealthServer(StatusBoard(), Metrics(), host="127.0.0.1", port=port)
    await again.start()
    await again.close()


# --- the health command


def invoke(*arguments: str, **environ: str | None) -> tuple[int, str]:
    result = CliRunner().invoke(health, arguments, env={"STREAM_CONSUMER_HTTP": None, **environ})
    assert result.output.count("\n") == 1, result.output
    return result.exit_code, result.output.strip()


def test_health_command_exit_codes(running: Running) -> None:
    url = f"http://127.0.0.1:{running.port}"
    assert invoke("--url", url) == (0, f"healthy: 127.0.0.1:{running.port}")
    assert invoke(STREAM_CONSUMER_HTTP=f"0.0.0.0:{running.port}")[0] == 0
    running.board.task_died("coordinator", "KeyError")
    code, message = invoke("--url", url)
    assert code == 70
    assert "task coordinator died: KeyError" in message


def test_health_command_when_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, message = invoke("--url", f"127.0.0.1:{port}")
    assert code == 69
    assert "refused" in message
    assert invoke("--url", "no-such-host.invalid:1")[0] == 69


def test_health_command_when_the_process_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, message = ask("127.0.0.1", silent.getsockname()[1], timeout=0.3)
    assert code == 70
    assert "does not answer" in message


def test_health_command_when_something_else_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer(data: bytes) -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(data)

        for data in (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b""):
            thread = threading.Thread(target=answer, args=(data,))
            thread.start()
            assert ask("127.0.0.1", other.getsockname()[1])[0] == 69
            thread.join()


def test_health_command_takes_the_address_from_the_configuration(running: Running, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "application: a\nsource: {table: orders}\nhandler: {target: 'm:f'}\n"
        f"http: {{host: 0.0.0.0, port: {running.port}}}\n"
    )
    assert invoke("--config", str(config)) == (0, f"healthy: 127.0.0.1:{running.port}")
    config.write_text(f"http: {{port: {running.port}}}\nsorce: {{table: orders}}\n")
    assert invoke("--config", str(config))[0] == 0, "an edit that the daemon refuses to load does not make it sick"


@pytest.mark.parametrize(
    "text",
    [
        "application: [\n",
        "http: {port: nine}\n",
        "http: {port: 65536}\n",
        "http: 9464\n",
        "http: {port: '${NO_PORT}'}\n",
    ],
)
def test_health_command_when_the_configuration_does_not_say_where(text: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"application: a\nsource: {{table: orders}}\nhandler: {{target: 'm:f'}}\n{text}")
    result = CliRunner().invoke(health, ["--config", str(config)], env={"STREAM_CONSUMER_HTTP": None})
    assert (result.exit_code, f"{config}:" in result.output) == (78, True), result.output


@pytest.mark.parametrize("url", ["https://x:1", "http://", "127.0.0.1:port", "127.0.0.1:99999"])
def test_health_command_with_a_bad_address(url: str) -> None:
    assert CliRunner().invoke(health, ["--url", url]).exit_code == 2


def test_health_command_starts_fast_because_it_imports_little(running: Running, tmp_path: Path) -> None:
    """As the HEALTHCHECK of the image runs it, every ten seconds."""
    config = tmp_path / "config.yaml"
    sample = (Path(__file__).parents[2] / "config" / "consumer.yaml").read_text()
    config.write_text(sample.replace("port: 9464", f"port: {running.port}"))
    code = (
        "import sys; from consumer.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'aioboto3', 'botocore', 'aiohttp', 'pydantic', 'prometheus_client', 'structlog', 'asyncio'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    command = [sys.executable, "-c", code, "health", "--config", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, f"healthy: 127.0.0.1:{running.port}\n"), result.stderr
