"""Makes what config.yaml names on the local AWS, unless it is there: a table with a stream, a queue and a bucket."""

import os

import botocore.session

REGION = os.environ["AWS_REGION"]
client = botocore.session.get_session().create_client

dynamodb = client("dynamodb")
if "orders" not in dynamodb.list_tables()["TableNames"]:
    dynamodb.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
client("sqs").create_queue(QueueName="orders-dlq")
s3 = client("s3")
if "orders-letters" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
    s3.create_bucket(Bucket="orders-letters", CreateBucketConfiguration={"LocationConstraint": REGION})
print("there are a table orders, a queue orders-dlq and a bucket orders-letters")
