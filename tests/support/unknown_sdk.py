"""An SDK client that the direct GetRecords call does not know: pages then come through the SDK's own parser."""

from typing import Any


class UnknownClient:
    """``client`` without the attribute that the direct call needs, as another release of botocore may have it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name == "_endpoint":
            raise AttributeError(f"no such attribute: {name}")
        return getattr(self._client, name)
