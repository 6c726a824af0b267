"""dynamodb-stream-consumer: public names for authors of handlers.

``Record`` and ``Context`` are loaded on first use: a handler module that does ``import consumer`` for its type
hints must not pay for the daemon, and the command line must start fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumer.domain.record import Record
    from consumer.handlers.handler_context import Context

__all__ = ["Context", "Record"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Record":
        from consumer.domain.record import Record

        return Record
    if name == "Context":
        from consumer.handlers.handler_context import Context

        return Context
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
