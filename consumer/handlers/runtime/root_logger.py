"""The root logger as Lambda's runtime prepares it before it imports a function.

Functions rely on it: they set a level and log, and never configure logging; without a handler Python throws away what
is below WARNING. Powertools looks for this handler, too, so that its own lines do not come twice.
"""

from __future__ import annotations

import logging
import sys
import time

_FORMAT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s"


class LambdaLogHandler(logging.Handler):
    """Lines in Lambda's text format on whatever ``sys.stdout`` is at that moment.

    ``request_id`` is that of the call in progress, empty before the first one. Formatters of user code find it as
    ``%(aws_request_id)s``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.request_id = ""
        formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = self.request_id
        try:
            sys.stdout.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001  # logging never raises into the code that logs
            self.handleError(record)


def install() -> LambdaLogHandler:
    """Put the handler on the root logger, whose level stays WARNING as in Lambda."""
    handler = LambdaLogHandler()
    logging.getLogger().addHandler(handler)
    return handler
