"""Options beyond the defaults, through the daemon: Lambda's failure documents, and filters that compare numbers."""

import json
import uuid

from tests.e2e.conftest import Aws, client
from tests.e2e.fleet import Fleet, wait_until

LAMBDA_KEYS = ["requestContext", "responseContext", "version", "timestamp", "DDBStreamBatchInfo"]
SERVICES = ("dynamodb", "dynamodb_streams", "sqs", "s3")


def test_letters_in_lambdas_format_reach_queue_and_bucket(aws: Aws, fleet: Fleet) -> None:
    """The message is Lambda's, and its attribute leads to the records."""
    s3 = client("s3", aws.endpoint)
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    url, queue = aws.queue()
    aws.poison(fleet.table, "bad", 7)
    worker = fleet.start(
        "w1",
        {"AWS_LAMBDA_FUNCTION_NAME": "orders-on-lambda"},
        aws={"endpoints": dict.fromkeys(SERVICES, aws.endpoint)},
        batch={"batch_size": 1},
        on_failure={"destination": queue, "format": "lambda", "overflow": f"s3://{bucket}/kept"},
    )
    wait_until(lambda: worker.metric("stream_consumer_dead_letters_total") == 1, 30, "the dead letter")
    (message,) = aws.sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    letter = json.loads(message["Body"])
    assert list(letter) == LAMBDA_KEYS
    assert letter["requestContext"]["functionArn"].endswith(":function:orders-on-lambda")
    assert letter["responseContext"]["functionError"] == "Unhandled"
    location = message["MessageAttributes"]["payload_location"]["StringValue"]
    key = location.removeprefix(f"s3://{bucket}/")
    (record,) = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())["Records"]
    assert record["dynamodb"]["NewImage"]["version"] == {"N": "7"}
    assert record["dynamodb"]["SequenceNumber"] == letter["DDBStreamBatchInfo"]["startSequenceNumber"]


def test_numbers_are_filtered_when_asked(aws: Aws, fleet: Fleet) -> None:
    """Twelve versions of ten keys: those above 9 are handled, as numbers and not as texts."""
    written = aws.write(fleet.table, 10, range(1, 13))
    worker = fleet.start(
        "w1",
        filters=[{"dynamodb": {"NewImage": {"version": {"N": [{"numeric": [">", 9]}]}}}}],
        filter_options={"numeric_on_n": True},
    )
    expected = {(key, version) for key, version in written if version > 9}
    fleet.wait_for(expected)
    wait_until(lambda: worker.metric("stream_consumer_filtered_total") == len(written) - len(expected), 20, "the rest")
    assert fleet.handled() == expected
