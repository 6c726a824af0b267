"""How programs that speak the Lambda Runtime API may say their answers and errors: forms that differ by language."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from tests.integration.handlers.runtimes import running_program, write_program
from tests.integration.handlers.support import call, invoke, number


def a_call(records: int = 1) -> Any:
    return msgspec.structs.replace(call(records), request_id=str(uuid.uuid4()))


async def test_an_error_is_told_with_its_type_and_place(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        def handle(event, headers):
            raise KeyError("no such order")
        run(handle)
        """,
    )
    async with running_program(command, tmp_path) as handler:
        for _ in range(2):
            fault = (await invoke(handler, a_call())).fault
            assert (fault.kind, fault.type, fault.message) == ("raised", "KeyError", "'no such order'")
            assert fault.stack == ("a line", "x.go:3 f")


async def test_the_stack_of_node_js_has_another_name(tmp_path: Path) -> None:
    command = write_program(
        tmp_path,
        """
        answer, event = ask("GET", "/invocation/next")
        path = "/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/error"
        trace = ["Error: no such order", "    at handler (index.js:3:5)"]
        ask("POST", path, json.dumps({"errorMessage": "no such order", "errorType": "Error", "trace": trace}))
        run(lambda event, headers: None)
        """,
    )
    async with running_program(command, tmp_path) as handler:
        fault = (await invoke(handler, a_call())).fault
        assert fault.stack == ("Error: no such order", "    at handler (index.js:3:5)")


LARGE_ERROR = """
answer, event = ask("GET", "/invocation/next")
path = "/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/error"
said = json.dumps({"errorMessage": "no such order", "errorType": "KeyError", "stackTrace": ["a line" * 1000] * LINES})
prefix = "Lambda-Runtime-Function-"
headers = {prefix + "Error-Type": "KeyError", prefix + "XRay-Error-Cause": "x" * (1 << 20)}
print(ask("POST", path, said, headers)[0].status)
run(lambda event, headers: None)
"""


@pytest.mark.parametrize(("stack_lines", "message"), [(100, "no such order"), (300, "too large to be read")])
async def test_a_large_error_is_told_as_well(tmp_path: Path, stack_lines: int, message: str) -> None:
    """A recursion that never ends has places enough for a megabyte, in the body and for X-Ray in a header."""
    command = write_program(tmp_path, LARGE_ERROR.replace("LINES", str(stack_lines)))
    with capture_logs() as logs:
        async with running_program(command, tmp_path) as handler:
            fault = (await invoke(handler, a_call())).fault
            assert (fault.kind, fault.type) == ("raised", "KeyError")
            assert message in fault.message
            assert (await invoke(handler, a_call())).kind == "ok"
    assert _printed(logs) == ["202"], "and the process goes on"


def _printed(logs: Any) -> list[str]:
    return [entry["line"] for entry in logs if entry["event"] == "handler.output"]


# In pieces, as a runtime streams it; ``TRAILERS`` end it.
STREAMED = """
answer, event = ask("GET", "/invocation/next")
path = BASE + "/invocation/" + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response"
client = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
client.putrequest("POST", path)
client.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
client.putheader("Transfer-Encoding", "chunked")
client.putheader("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")
client.endheaders()
for piece in PIECES:
    client.send(b"%x\\r\\n%s\\r\\n" % (len(piece), piece))
client.send(b"0\\r\\n" + TRAILERS + b"\\r\\n")
print(client.getresponse().status)
run(lambda event, headers: None)
"""
NAMES_ONE = f'{{"batchItemFailures": [{{"itemIdentifier": "{number(1)}"}}]}}'.encode()
FAILED_LATER = b"".join(b"Lambda-Runtime-Function-Error-%s\r\n" % one for one in (b"Type: Function.Cut", b"Body: e30="))


@pytest.mark.parametrize(
    ("pieces", "trailers", "means"),
    [
        ([NAMES_ONE[:7], NAMES_ONE[7:]], b"", "Runtime.StreamedResponse"),
        ([b" " * 300_000] * 10 + [NAMES_ONE], b"", "Runtime.StreamedResponse"),
        ([b" " * 1_000_000] * 7, b"", "Function.ResponseSizeTooLarge"),
        ([NAMES_ONE[:7]], FAILED_LATER, "Runtime.StreamedResponse"),
        ([b"null"], FAILED_LATER, "Runtime.StreamedResponse"),
    ],
    ids=["two pieces", "megabytes", "too large", "cut short", "error after a whole answer"],
)
async def test_a_streamed_answer_never_passes_for_a_success(
    tmp_path: Path, pieces: list[bytes], trailers: bytes, means: str
) -> None:
    """The HTTP library drops the trailers in which an error would be."""
    (tmp_path / "said.py").write_text(f"PIECES = {pieces!r}\nTRAILERS = {trailers!r}\n")
    command = write_program(tmp_path, "from said import *\n" + STREAMED)
    with capture_logs() as logs:
        async with running_program(command, tmp_path) as handler:
            outcome = await invoke(handler, a_call(3))
            assert outcome.kind == "failed"
            assert outcome.fault is not None
            assert outcome.fault.type == means
            assert (await invoke(handler, a_call())).kind == "ok", "the process goes on"
    assert _printed(logs)[:1] == ["413" if "TooLarge" in means else "202"]
