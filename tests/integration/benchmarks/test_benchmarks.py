"""The benchmark suite runs, and its rows do what they claim: tiny sizes, counts and order, no judgement of speed."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as main
from benchmarks import naive, plan, report, tables, targets
from benchmarks.handlers import on_lambda
from benchmarks.measure import Meter, percentile
from benchmarks.records import FIRST_NUMBER, index_of, key_of
from benchmarks.row import run_row
from benchmarks.rows.runtimes import RUNTIME_PYTHON
from benchmarks.servers import StubStream, steer
from benchmarks.stub_stream import STREAM_ARN, Stream
from consumer.aws.pages import convert_page, decode_page
from consumer.domain.compiled_values import PACKAGE
from consumer.domain.events import batch_event_json
from demo.local_aws import LocalAws


@pytest.fixture(scope="module")
def stub() -> Iterator[StubStream]:
    with StubStream() as server:
        yield server


class TestStub:
    def test_pages_follow_each_other_without_gap(self) -> None:
        stream = Stream()
        stream.configure({"shards": 2, "records": 25, "page": 10, "keys": 7})
        numbers: list[int] = []
        start = 0
        for _ in range(4):
            page = decode_page(stream.page(1, start, 1000), STREAM_ARN)
            numbers += [index_of(record.sequence_number) for record in page.records]
            start = int(str(page.next_iterator).split("|")[2])
        assert numbers == list(range(25))

    @pytest.mark.parametrize("size", [1000, 2000])
    def test_records_are_what_they_claim(self, size: int) -> None:
        stream = Stream()
        stream.configure({"size": size, "keys": 3})
        body = stream.page(0, 0, 100)
        page = decode_page(body, STREAM_ARN)
        record = page.records[5]
        image = json.loads(body)["Records"][5]["dynamodb"]["NewImage"]
        assert 0.9 * size < len(body) / 100 < 1.1 * size
        assert len(image) == 10
        assert {next(iter(value)) for value in image.values()} == {
            "S", "N", "BOOL", "NULL", "SS", "NS", "B", "BS", "L", "M",
        }  # fmt: skip
        assert record.sequence_number == str(FIRST_NUMBER + 5)
        assert record.keys["pk"].encode() == key_of(5, 3)
        assert record.new_image is not None
        assert record.old_image is not None

    def test_the_hand_written_loop_builds_an_equal_lambda_event(self) -> None:
        stream = Stream()
        body = stream.page(0, 0, 3)
        page = decode_page(body, STREAM_ARN)
        ours = json.loads(batch_event_json(list(page.records)))
        theirs = {"Records": [naive.lambda_record(record) for record in json.loads(body)["Records"]]}
        assert theirs == ours
        assert on_lambda(ours, None) == {"batchItemFailures": []}
        assert len(convert_page(json.loads(body), STREAM_ARN).records) == 3

    def test_steering(self, stub: StubStream) -> None:
        steer(stub.endpoint, "Configure", shards=3, records=0)
        assert steer(stub.endpoint, "Put", shard=1, count=5)["calls"] == {}


class TestRows:
    """Every kind of row, in a process of its own as in a real run."""

    @pytest.mark.soak
    def test_limit_and_naive(self, stub: StubStream) -> None:
        steer(stub.endpoint, "Configure", shards=2)
        for function, more in (("limit", {}), ("naive_loop", {"handler": "both_images"})):
            found = run_row("throughput", function, {"stream": stub.endpoint, "records": 3000, "shards": 2, **more})
            assert found["records"] >= 2000  # the first page starts the clock

    @pytest.mark.parametrize(
        "handler",
        [
            {"target": "benchmarks.handlers:both_images"},
            {
                "kind": "lambda",
                "isolation": "process",
                "processes": 2,
                "target": "benchmarks.handlers:on_lambda",
            },
        ],
        ids=["inline", "lambda"],
    )
    def test_daemon(self, stub: StubStream, local_aws: LocalAws, handler: dict[str, object]) -> None:
        steer(stub.endpoint, "Configure", shards=2)
        servers = {"stream": stub.endpoint, "table": local_aws.endpoint}
        found = run_row("throughput", "daemon", {**servers, "records": 4000, "handler": handler}, deadline=90)
        assert found["records"] >= 3000
        assert steer(stub.endpoint, "Stats")["calls"]["GetRecords"] >= 4

    def test_a_row_of_the_compiled_code_is_not_made_by_python(
        self, stub: StubStream, local_aws: LocalAws, speedups_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steer(stub.endpoint, "Configure", shards=2)
        row: dict[str, object] = {"stream": stub.endpoint, "table": local_aws.endpoint, "records": 4000}
        row |= {"handler": {"target": "benchmarks.handlers:both_images"}, "compiled": True}
        if importlib.util.find_spec(PACKAGE) is None:
            with pytest.raises(RuntimeError, match="it is not installed"):
                run_row("throughput", "daemon", row)
        monkeypatch.syspath_prepend(speedups_folder)
        assert run_row("throughput", "daemon", row)["records"] >= 3000

    @pytest.mark.soak
    def test_order_is_kept_by_concurrent_handlers(self, stub: StubStream, local_aws: LocalAws) -> None:
        steer(stub.endpoint, "Configure", shards=1, keys=5)
        servers = {"stream": stub.endpoint, "table": local_aws.endpoint}
        found = run_row("concurrency", "daemon", {**servers, "keys": 5, "width": 10, "records": 300}, deadline=90)
        assert found["disordered"] == 0
        assert found["speed_up"] > 0

    @pytest.mark.soak
    def test_latency_at_a_share_of_what_is_possible(self, stub: StubStream, local_aws: LocalAws) -> None:
        servers = {"stream": stub.endpoint, "table": local_aws.endpoint}
        options = {"shards": 1, "share": 0.1, "seconds": 1.0, "flat_out": 4000}
        found = run_row("latency", "at_share", {**servers, **options}, deadline=90)
        assert found["rate"] > 0
        assert found["calls"] > 0
        assert 0 < found["p50_ms"] <= found["p99_ms"]

    @pytest.mark.soak
    def test_cold_start(self, stub: StubStream, local_aws: LocalAws) -> None:
        servers = {"stream": stub.endpoint, "table": local_aws.endpoint}
        found = run_row("cold_start", "cold_start", {**servers, "shards": 120})
        assert found["shards"] == 120
        assert 0 < found["cpu_s"] < found["total_s"] + 1

    @pytest.mark.soak
    def test_crash(self, stub: StubStream, local_aws: LocalAws) -> None:
        servers = {"stream": stub.endpoint, "table": local_aws.endpoint}
        found = run_row("crash", "crash", {**servers, "shards": 2, "rate": 5.0, "kills": 1})
        assert 0 <= found["repeated_a_shard"] < 50
        assert found["writes_a_shard_second"] > 0

    def test_small_pages(self, stub: StubStream) -> None:
        steer(stub.endpoint, "Configure", shards=1, page=10)
        for function in ("sdk", "source"):
            found = run_row("small_pages", function, {"stream": stub.endpoint, "calls": 5})
            assert (found["calls"], found["records"]) == (5, 50)

    @pytest.mark.parametrize("kind", ["built_in", "other_python", "awslambdaric"])
    def test_runtimes(self, kind: str) -> None:
        if kind != "built_in" and not RUNTIME_PYTHON.exists():
            pytest.skip("no environment with awslambdaric: make .venv-runtime/.ready")
        found = run_row("runtimes", "calls", {"stream": "", "kind": kind, "calls": 20})
        assert found["calls"] == 20
        assert found["us_per_call"] >= found["us_daemon"] > 0

    def test_a_row_that_fails_says_why(self) -> None:
        with pytest.raises(RuntimeError, match="ConnectionRefused"):
            run_row("throughput", "limit", {"stream": "http://127.0.0.1:9", "records": 1, "shards": 1})


def test_a_row_whose_environment_is_missing_is_skipped_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need = plan.Need(".venv-gone/bin/python", there=False, made_by="make")
    missing = plan.Row("g", "a row", "m", "f", {}, needs=need)
    monkeypatch.setattr(plan, "repeated", lambda scale: [missing])
    monkeypatch.setattr(plan, "once", lambda scale: [])
    assert main.run([], rounds=2, scale=1.0) == {"medians": {}, "rounds": {}}
    assert capsys.readouterr().err == "a row: skipped, there is no .venv-gone/bin/python (make makes it)\n"


class TestJudgement:
    def test_targets_need_their_rows_and_know_their_direction(self) -> None:
        medians = {
            "daemon, no-op": {"per_cpu_second": 200.0},
            "naive, no-op": {"per_cpu_second": 2.0},
            "limit": {"per_cpu_second": 500.0},
            "loop lag, daemon": {"wall_p99_ms": 60.0},
            "loop lag, naive": {"wall_p99_ms": 600.0},
            "5 ms, bare tasks, width 100": {"per_second": 15000.0},
            "5 ms, 1000 keys, width 100": {"per_second": 14400.0},
            "cold start": {"shards": 100, "cpu_s": 1.0, "lag_max_ms": 1.0},
        }
        found = {entry["target"]: entry["ok"] for entry in targets.judge(medians)}
        assert found == {
            "no-op handler against the naive loop": True,
            "no-op handler against the limit": False,
            "loop stalls at full load, p99, against the naive loop's": False,
            "5 ms, 1000 keys, width 100: against bare tasks": True,
        }
        text = report.verdicts(targets.judge(medians))
        assert "MISS" in text
        assert "against_naive=100" in report.table(medians)
        assert report.chart(medians).count("<rect") == 4

    def test_rows_that_are_compared_run_one_after_the_other_in_any_order(self) -> None:
        rows = [plan.Row(group, f"{group}{number}", "m", "f", {}) for number in range(3) for group in "abc"]
        orders = {tuple(row.name for row in main.in_random_order(rows, seed)) for seed in range(20)}
        assert len(orders) > 10
        for order in orders:
            assert sorted(order) == sorted(row.name for row in rows)
            assert len({name[0] for name in order[:3]}) == len({name[0] for name in order[3:6]}) == 1

    def test_every_result_says_how_busy_the_machine_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(main.machine, "load", lambda: 3.5)
        monkeypatch.setattr(plan, "repeated", lambda scale: [plan.Row("g", "a row", "m", "f", {})])
        monkeypatch.setattr(plan, "once", lambda scale: [])
        monkeypatch.setattr(plan.Row, "run", lambda row, stream, table: {"per_second": 2.0})
        assert main.run([], rounds=2, scale=1.0)["medians"] == {"a row": {"per_second": 2.0, "load": 3.5}}
        about = {"cpu": "Fast 9000", "cores": 2, "python": "3.11.7", "machine": "x86_64", "rounds": 2, "scale": 1.0}
        assert report.heading(about, 3.5).startswith("Fast 9000, 2 cores, Python 3.11.7, 2 rounds; load average 3.5")
        assert set(main.machine.description()) == {"cpu", "cores", "python", "machine"}

    def test_meter_leaves_out_what_is_before_its_start(self) -> None:
        ended: list[bool] = []
        meter = Meter(30, warm_up=5, on_end=lambda: ended.append(True))
        for _ in range(6):
            meter.count(10)
        assert (meter.measured, ended) == (20, [True])

    def test_percentile(self) -> None:
        assert [percentile(range(100), share) for share in (0.0, 0.5, 0.99, 1.0)] == [0, 50, 99, 99]
        assert percentile([], 0.5) == 0.0


def test_the_committed_results_name_no_machine() -> None:
    for path in Path(__file__).parents[3].glob("benchmarks/results/*"):
        text = path.read_text()
        assert "/tmp" not in text
        assert "127.0.0.1" not in text


class TestTables:
    def test_the_page_has_the_figures_of_the_committed_run(self) -> None:
        """No figure is copied by hand: ``python -m benchmarks.tables`` after a run that is committed."""
        page = tables.PAGE.read_text()
        assert page == tables.filled(page, json.loads(tables.LAST.read_text()))

    def test_every_table_is_on_the_page(self) -> None:
        assert set(re.findall(r"<!-- bench: ([\w ]+) -->", tables.PAGE.read_text())) == set(tables.TABLES)

    def test_a_mark_of_no_table_is_an_error(self) -> None:
        with pytest.raises(KeyError, match="unheard of"):
            tables.filled("<!-- bench: unheard of -->\n<!-- end -->\n", {})

    def test_a_table_is_replaced_and_the_rest_stays(self) -> None:
        run = {"medians": {"loop lag, naive": LAGS, "loop lag, daemon": LAGS}}
        page = "before\n<!-- bench: lag -->\nold\n<!-- end -->\nafter\n"
        filled = tables.filled(page, run)
        assert filled.startswith("before\n<!-- bench: lag -->\n\n| event loop flat out |")
        assert filled.endswith("| daemon | 10 ms | 1,234 ms |\n\n<!-- end -->\nafter\n")
        assert tables.filled(filled, run) == filled


LAGS = {"lag_p99_ms": 10.0, "lag_max_ms": 1234.0}
