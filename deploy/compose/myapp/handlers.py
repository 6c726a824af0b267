"""Lambda code, as it would run on Lambda. Replace it with yours."""


def handler(event, context):
    for record in event["Records"]:
        print(record["eventName"], record["dynamodb"]["Keys"])
