"""The function in Python beside the boto3 of its own environment, which it names at every call."""

import boto3
import python_function


def handler(event, context):
    print("boto3", boto3.__version__)
    return python_function.handler(event, context)
