"""A handler whose process dies with its first call in the worker ``victim``, and whose import takes long from then on:
as long as there is a file ``cold`` beside the journal."""

import os
import time
from pathlib import Path

from journal_handler import lambda_handler

FOLDER = Path(os.environ["JOURNAL"]).parent
IS_VICTIM = os.environ["WORKER"] == "victim"

while IS_VICTIM and (FOLDER / "cold").exists():
    time.sleep(0.02)
if IS_VICTIM and (FOLDER / "crashed").exists():
    (FOLDER / "imported").touch()


def handler(event, context):
    """Journals, if it lives."""
    if IS_VICTIM and not (FOLDER / "crashed").exists():
        (FOLDER / "cold").touch()
        (FOLDER / "crashed").touch()
        os._exit(1)
    lambda_handler(event, context)
