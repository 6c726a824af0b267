"""Every failure of a call has one meaning for the rest of the program."""

import asyncio
import datetime as dt
import gc

import aiohttp
import pytest
from aiohttp import web
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from consumer.aws.errors import (
    MAX_MESSAGE,
    ApiCaller,
    AwsConfigurationError,
    ConditionFailed,
    CredentialsRejected,
    TransactionConflict,
    Unanswered,
    outcome_of,
    translate,
)
from consumer.aws.session import AwsSession
from consumer.domain.errors import (
    DependencyError,
    ExpiredIterator,
    KeyUnusable,
    LeaseLost,
    PermissionDenied,
    ResourceMissing,
    Throttled,
    TrimmedData,
)

KINESIS = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0d990263-018e-4e65-a703-eff731de951e"
STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"


def answer(code, message="", status=400, operation="GetRecords", **more):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(response, operation)


@pytest.mark.parametrize(
    "code",
    [
        "ThrottlingException",
        "Throttling",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "TooManyRequestsException",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "KMSThrottlingException",
        "KMS.ThrottlingException",
        "KmsThrottled",
        "OverLimit",
        "429",
    ],
)
def test_throttles(code):
    error = translate(answer(code), "GetRecords", STREAM)
    assert type(error) is Throttled
    assert error.code == code


@pytest.mark.parametrize(
    ("operation", "resource", "code", "action"),
    [
        ("GetRecords", STREAM, "AccessDeniedException", "dynamodb:GetRecords"),
        ("GetRecords", KINESIS, "AccessDeniedException", "kinesis:GetRecords"),
        ("GetRecords", f"shard shardId-000000000001 of {KINESIS}", "AccessDeniedException", "kinesis:GetRecords"),
        ("GetShardIterator", "Kinesis stream orders", "AccessDeniedException", "kinesis:GetShardIterator"),
        ("DescribeStream", "Kinesis stream orders", "AccessDeniedException", "kinesis:DescribeStream"),
        ("DescribeStreamSummary", "orders", "AccessDeniedException", "kinesis:DescribeStreamSummary"),
        ("ListShards", "orders", "AccessDeniedException", "kinesis:ListShards"),
        ("RegisterStreamConsumer", "orders", "AccessDeniedException", "kinesis:RegisterStreamConsumer"),
        ("SubscribeToShard", "orders", "AccessDeniedException", "kinesis:SubscribeToShard"),
        ("DescribeStream", "orders", "AccessDeniedException", "dynamodb:DescribeStream"),
        (
            "DescribeKinesisStreamingDestination",
            "orders",
            "AccessDeniedException",
            "dynamodb:DescribeKinesisStreamingDestination",
        ),
        ("GetRecords", KINESIS, "KMSAccessDeniedException", "kms:Decrypt"),
        ("UpdateItem", "lease table t", "AccessDeniedException", "dynamodb:UpdateItem"),
        ("DescribeTable", "t", "UnauthorizedOperation", "dynamodb:DescribeTable"),
        ("SendMessage", "arn:aws:sqs:eu-west-1:1:q", "AccessDenied", "sqs:SendMessage"),
        ("SendMessage", "queue", "AWS.SimpleQueueService.AccessDenied", "sqs:SendMessage"),
        ("SendMessage", "arn:aws:sqs:eu-west-1:1:q", "KMS.AccessDeniedException", "kms:GenerateDataKey"),
        ("GetRecords", STREAM, "KMSAccessDeniedException", "kms:Decrypt"),
        ("Publish", "topic", "AuthorizationError", "sns:Publish"),
        ("PutObject", "s3://b/p", "AccessDenied", "s3:PutObject"),
        ("HeadBucket", "s3://b", "403", "s3:ListBucket"),
    ],
)
def test_a_denial_names_action_and_resource(operation, resource, code, action):
    error = translate(answer(code, operation=operation), operation, resource)
    assert type(error) is PermissionDenied
    assert (error.action, error.resource, error.exit_code) == (action, resource, 77)


def test_the_action_aws_names_wins():
    message = "User: arn:aws:iam::1:user/u is not authorized to perform: kms:Decrypt on resource: arn:aws:kms:x because"
    error = translate(answer("AccessDeniedException", message), "GetItem", "t")
    assert (error.action, error.resource) == ("kms:Decrypt", "arn:aws:kms:x")


@pytest.mark.parametrize(
    "code",
    [
        "KMSDisabledException",
        "KMSInvalidStateException",
        "KMSNotFoundException",
        "KMSOptInRequired",
        "com.amazonaws.kinesis.v20131202#KMSDisabledException",
        "KMS.DisabledException",
        "KmsInvalidState",
        "AWS.SimpleQueueService.KmsNotFound",
    ],
)
@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("", KINESIS),
        ("no key is named", KINESIS),
        (f"{KEY} is disabled.", KEY),
        (f"The key '{KEY}', of the account", KEY),
        (f"wrong state: {KEY}.", KEY),
    ],
)
def test_a_key_that_cannot_be_used_takes_a_person(code, message, key):
    """A denial for all that wait for one; what to do about it is another thing."""
    error = translate(answer(code, message), "GetRecords", KINESIS)
    assert type(error) is KeyUnusable
    assert isinstance(error, PermissionDenied)
    assert (error.action, error.resource, error.code) == ("kms:Decrypt", key, code.rpartition("#")[2])
    assert outcome_of(error) == "denied"
    assert f"kms:Decrypt is not possible with {'' if key == KEY else 'the key of '}{key}: {error.code}" in str(error)
    assert message in str(error)
    assert "it must exist and be enabled" in str(error)
    assert "role's policy" not in str(error)


def test_a_denial_of_a_key_names_the_key_where_the_message_has_it():
    for message in (f"The ciphertext refers to {KEY}, which is not yours", f"no access to ({KEY})"):
        error = translate(answer("KMSAccessDeniedException", message), "GetRecords", KINESIS)
        assert (type(error), error.action, error.resource) == (PermissionDenied, "kms:Decrypt", KEY)


def test_the_key_of_a_queue_is_used_to_encrypt():
    error = translate(answer("KmsDisabled"), "SendMessage", "arn:aws:sqs:eu-west-1:1:q")
    assert (type(error), error.action) == (KeyUnusable, "kms:GenerateDataKey")


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("GetShardIterator", "InvalidArgumentException"),
        ("ListShards", "ExpiredNextTokenException"),
        ("SubscribeToShard", "ResourceInUseException"),
        ("GetRecords", "ValidationException"),
    ],
)
def test_what_the_caller_decides_about_keeps_code_and_message(operation, code):
    message = "StartingSequenceNumber 49 used in GetShardIterator on shard shardId-0 is invalid"
    error = translate(answer(code, message), operation, KINESIS)
    assert type(error) is DependencyError
    assert (error.operation, error.code) == (operation, code)
    assert message in str(error)


@pytest.mark.parametrize(
    "code",
    [
        "ResourceNotFoundException",
        "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException",
        "QueueDoesNotExist",
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchBucket",
        "NotFound",
        "404",
    ],
)
def test_missing(code):
    error = translate(answer(code), "GetItem", "orders")
    assert type(error) is ResourceMissing
    assert error.resource == "orders"


@pytest.mark.parametrize(
    ("code", "kind"), [("ExpiredIteratorException", ExpiredIterator), ("TrimmedDataAccessException", TrimmedData)]
)
def test_stream_positions_match_on_the_code_alone(code, kind):
    assert type(translate(answer(code), "GetRecords", STREAM)) is kind


@pytest.mark.parametrize(
    "code", ["UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException", "ExpiredToken"]
)
def test_refused_credentials_may_pass_and_say_what_to_do(code):
    error = translate(answer(code), "GetItem", "orders")
    assert type(error) is CredentialsRejected
    assert isinstance(error, DependencyError)
    assert error.exit_code == 69
    assert "dynamodb:GetItem" in str(error)
    assert "renew" in str(error)


def test_a_failed_condition_shows_the_row():
    item = {"epoch": {"N": "3"}}
    refused = translate(answer("ConditionalCheckFailedException", Item=item), "UpdateItem", "t")
    assert isinstance(refused, ConditionFailed)
    assert refused.item == item
    assert translate(answer("ConditionalCheckFailedException"), "UpdateItem", "t").item is None


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (["ConditionalCheckFailed", "None"], ConditionFailed),
        (["TransactionConflict", "ConditionalCheckFailed"], ConditionFailed),
        (["None", "TransactionConflict"], TransactionConflict),
        (["ThrottlingError"], Throttled),
    ],
)
def test_a_cancelled_transaction_means_its_worst_reason(codes, kind):
    reasons = [{"Code": code} for code in codes]
    with_reasons = answer("TransactionCanceledException", CancellationReasons=reasons)
    only_text = answer("TransactionCanceledException", f"Transaction cancelled [{', '.join(codes)}]")
    for error in (with_reasons, only_text):
        assert type(translate(error, "TransactWriteItems", "t")) is kind


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ReadTimeoutError(endpoint_url="u"),
        EndpointConnectionError(endpoint_url="u"),
        aiohttp.ClientPayloadError("cut"),
        ConnectionResetError(),
        ResponseParserError("not json"),
        answer("InternalServerError", status=500),
        answer("ServiceUnavailable", status=503),
    ],
)
def test_no_usable_answer_is_ambiguous(error):
    assert type(translate(error, "PutItem", "t")) is Unanswered


def test_anything_else_is_a_dependency_error_in_one_short_line():
    error = translate(answer("ValidationException", "a\nb " * 1000), "PutItem", "t")
    assert type(error) is DependencyError
    assert (error.operation, error.code) == ("PutItem", "ValidationException")
    assert "\n" not in str(error)
    assert len(str(error)) < MAX_MESSAGE + 60


def test_errors_of_ours_stay_what_they_are():
    error = LeaseLost("s", 1, "x")
    assert translate(error, "PutItem", "t") is error
    assert isinstance(translate(NoCredentialsError(), "PutItem", "t"), AwsConfigurationError)


class TestApiCaller:
    async def test_it_returns_the_answer_and_counts(self):
        seen = []
        caller = ApiCaller(lambda *call: seen.append(call))
        assert await caller.call("GetItem", "t", asyncio.sleep(0, "answer")) == "answer"
        assert seen[0][:2] == ("GetItem", "ok")
        assert seen[0][2] >= 0

    async def test_waiting_for_a_turn_is_not_the_time_of_a_call(self):
        """Twenty calls of 30 ms one after the other, each of which has 200 ms, from its turn on."""
        seen, running, most = [], 0, 0

        async def answer():
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.03)
            running -= 1

        def run():
            return asyncio.gather(*(caller.call("UpdateItem", "t", answer(), 0.2) for _ in range(40)))

        caller = ApiCaller(lambda *call: seen.append(call), at_once=2)
        await run()
        assert most == 2
        assert {outcome for _, outcome, _ in seen} == {"ok"}
        assert max(seconds for _, _, seconds in seen) < 0.2

    async def test_a_call_that_is_cancelled_before_its_turn_leaves_no_trace(self, recwarn):
        caller, begun = ApiCaller(at_once=1), []

        async def call():
            begun.append(True)
            await asyncio.Event().wait()

        first, second = (asyncio.create_task(caller.call("GetItem", "t", call())) for _ in range(2))
        await asyncio.sleep(0)
        for task in (second, first):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert begun == [True]
        assert await caller.call("GetItem", "t", asyncio.sleep(0, "turn"), 1.0) == "turn"
        gc.collect()
        assert not recwarn.list, "as of a coroutine that was never awaited"

    async def test_a_call_that_stays_silent_ends(self):
        seen = []
        with pytest.raises(Unanswered) as caught:
            await ApiCaller(lambda *call: seen.append(call[1])).call("GetItem", "t", asyncio.sleep(60), 0.01)
        assert caught.value.code == "Timeout"
        assert seen == ["timeout"]

    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (answer("ThrottlingException"), "throttled"),
            (answer("AccessDeniedException"), "denied"),
            (answer("ResourceNotFoundException"), "missing"),
            (answer("ConditionalCheckFailedException"), "condition_failed"),
            (answer("ExpiredIteratorException"), "expired"),
            (answer("TrimmedDataAccessException"), "trimmed"),
            (answer("TransactionConflictException"), "conflict"),
            (answer("Whatever"), "error"),
            (OSError("x"), "error"),
        ],
    )
    async def test_outcomes_are_a_closed_set(self, error, outcome):
        seen = []

        async def fail():
            raise error

        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the other tests' business
            await ApiCaller(lambda *call: seen.append(call[1])).call("GetRecords", "t", fail())
        assert seen == [outcome] == [outcome_of(caught.value)]
        assert caught.value.__cause__ is error

    async def test_a_bug_is_not_dressed_up(self):
        async def bug():
            raise KeyError("x")

        with pytest.raises(KeyError):
            await ApiCaller().call("GetItem", "t", bug())

    async def test_cancelling_is_not_a_failure(self):
        seen = []
        call = asyncio.ensure_future(ApiCaller(lambda *c: seen.append(c)).call("GetItem", "t", asyncio.sleep(60)))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert seen == []


class TestSessionConfiguration:
    async def test_no_credentials(self, aws_environment, monkeypatch):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(AwsConfigurationError, match="no AWS credentials") as caught:
            await AwsSession("eu-west-1", {}).__aenter__()
        assert caught.value.exit_code == 78

    async def test_half_credentials(self, aws_environment, monkeypatch):
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(AwsConfigurationError, match="AWS_SECRET_ACCESS_KEY"):
            await AwsSession("eu-west-1", {}).__aenter__()

    async def test_no_region(self, aws_environment, monkeypatch):
        monkeypatch.delenv("AWS_REGION")
        monkeypatch.delenv("AWS_DEFAULT_REGION")
        with pytest.raises(AwsConfigurationError, match="no AWS region"):
            await AwsSession(None, {}).__aenter__()

    async def test_an_unknown_profile(self, aws_environment, monkeypatch):
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(AwsConfigurationError, match="nobody"):
            await AwsSession("eu-west-1", {}).__aenter__()

    async def test_an_endpoint_that_is_no_url(self, aws_environment):
        async with AwsSession("eu-west-1", {"sqs": "not a url"}) as session:
            with pytest.raises(AwsConfigurationError, match="sqs"):
                await session.client("sqs")

    async def test_one_client_a_service_and_its_endpoint(self, aws_environment, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:3")
        endpoints = {"dynamodb": "http://127.0.0.1:1", "dynamodb_streams": "http://127.0.0.1:2"}
        async with AwsSession("eu-west-1", endpoints) as session:
            first, second = await asyncio.gather(session.client("dynamodb"), session.client("dynamodb"))
            assert first is second
            assert first.meta.endpoint_url == "http://127.0.0.1:1"
            assert (await session.client("dynamodbstreams")).meta.endpoint_url == "http://127.0.0.1:2"
            assert (await session.client("sqs")).meta.endpoint_url == "http://127.0.0.1:3"
            assert first.meta.config.retries["total_max_attempts"] == 1
            assert (first.meta.config.connect_timeout, first.meta.config.read_timeout) == (2.0, 10.0)
        with pytest.raises(RuntimeError):
            await session.client("dynamodb")

    async def test_a_server_that_is_not_there_is_reported_within_the_time_out(self, aws_environment):
        async with AwsSession("eu-west-1", {"dynamodb": "http://127.0.0.1:9"}) as session:
            client = await session.client("dynamodb")
            with pytest.raises(Unanswered, match="ListTables"):
                await ApiCaller().call("ListTables", "t", client.list_tables())


# --- a provider that gives nothing usable -----------------------------------------------------------


def good_for(seconds):
    expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    return {"AccessKeyId": "AK", "SecretAccessKey": "SK", "Token": "T", "Expiration": expiry.isoformat()}


@pytest.mark.parametrize(
    "answer",
    [good_for(-60), good_for(60) | {"Expiration": "garbage"}, {}, {"AccessKeyId": "AK"}],
    ids=["expired", "a date that is none", "empty", "a part missing"],
)
async def test_credentials_that_cannot_be_used_may_pass(aws_environment, monkeypatch, answer):
    """Whatever their provider answers, it is no bug of the caller: the start goes on asking."""

    async def give(_):
        return web.json_response(answer)

    runner = web.ServerRunner(web.Server(give))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{runner.addresses[0][1]}/")
    try:
        with pytest.raises(DependencyError) as caught:
            await AwsSession("us-east-1", {"dynamodb": "http://127.0.0.1:9"}).__aenter__()
        assert (caught.value.code, caught.value.exit_code) == ("CredentialRetrievalError", 69)
    finally:
        await runner.cleanup()


async def test_a_call_that_the_library_cancels_by_itself_has_no_answer():
    """A CancelledError that was not asked for would end the caller's task as if it had been told to, without a word."""
    pool = asyncio.get_running_loop().create_future()
    pool.cancel()
    with pytest.raises(Unanswered):
        await ApiCaller().call("UpdateItem", "leases", pool)


async def test_a_call_is_cancelled_with_its_caller():
    call = asyncio.ensure_future(ApiCaller().call("UpdateItem", "leases", asyncio.Event().wait()))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ApiCaller().call("UpdateItem", "leases", asyncio.Event().wait())


@pytest.mark.parametrize("operation", ["GetRecords", "UpdateItem", "SendMessage"])
async def test_what_recurses_too_deeply_elsewhere_is_a_bug_and_no_redirect(operation: str) -> None:
    async def deep() -> None:
        raise RecursionError("maximum recursion depth exceeded")

    with pytest.raises(RecursionError):
        await ApiCaller().call(operation, "orders", deep())
