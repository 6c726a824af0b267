"""dynamodb-stream-consumer: public names for authors of handlers.

``Record``, ``KinesisRecord`` and ``Context`` are loaded on first use: a handler module that does ``import consumer``
for its type hints must not pay for the daemon, and the command line must start fast.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.domain.kinesis_records import KinesisRecord
    from consumer.domain.record import Record
    from consumer.handlers.runtime.context import Context

__all__ = ["Context", "KinesisRecord", "Record"]
__version__ = "0.1.0"

_MODULES = {
    "Context": "handlers.runtime.context",
    "KinesisRecord": "domain.kinesis_records",
    "Record": "domain.record",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    # In a worker process the types are those of its runtime, which has a package name of its own.
    package = "_stream_consumer" if "_stream_consumer" in sys.modules else "consumer"
    return getattr(import_module(f"{package}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
