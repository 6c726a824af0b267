"""A handler that tells everything it knows of an item: in what it prints and logs, in its error, and in the stack."""

import base64
import json
import logging

log = logging.getLogger()


def lambda_handler(event, context):
    (record,) = event["Records"]
    image = record["dynamodb"]["NewImage"]
    print("handling", image)
    print(json.dumps({"item": json.dumps(image)}))
    log.error("handling %s", json.dumps(image))
    print("done with", record["dynamodb"]["Keys"]["pk"]["S"])
    card = int(image["card"]["N"])
    name = image["person"]["M"]["name"]["S"]
    photo = base64.b64decode(image["photo"]["B"])
    ssn = image["ssn"]["S"]
    told = f"{ssn} {ssn.upper()} {name!r} {json.dumps(name)} {card} {card:,} {photo!r} {photo.hex()}"
    code = compile("raise KeyError(told, image)", f"/srv/{ssn}.py", "exec")
    exec(code, {"told": told, "image": image})
