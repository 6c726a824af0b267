"""The SDK's service models, which all sessions of the process share.

As they come, the SDK decodes them into ordered dictionaries, pair by pair. With the certificate authorities (150 of
them), which it reads for each client anew (``connections.py``), that was a quarter of the CPU time of a start.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec
from botocore.exceptions import DataNotFoundError
from botocore.loaders import JSONFileLoader, Loader

SERVICES: Final = ("dynamodb", "dynamodbstreams", "kinesis", "s3", "sns", "sqs")  # sorted, as the SDK lists them
_FORMATS: Final[Mapping[str, Callable[..., Any]]] = {".json": open, ".json.gz": gzip.open}  # in the SDK's order


@cache
def models(data_path: str | None) -> Loader:
    """The loader of service models, once for all sessions (each event loop has one): they are large, and read-only.
    ``data_path`` is as in ``AWS_DATA_PATH``."""
    paths = [os.path.expandvars(path) for path in (data_path or "").split(os.pathsep)]
    known = [os.path.expanduser(path) for path in paths if path]  # noqa: PTH111 - pathlib's raises where there is no home
    return _Models(known, _ModelFiles())


class _Models(Loader):  # type: ignore[misc]  # botocore has no types
    """Finds the models of the services that are used here without looking into the folders of the 400 others."""

    def list_available_services(self, type_name: str) -> list[str]:
        """Those of ``SERVICES`` that have a file of this type."""
        return [service for service in SERVICES if self._has(service, type_name)]

    def _has(self, service: str, type_name: str) -> bool:
        try:
            self.list_api_versions(service, type_name)
        except DataNotFoundError:
            return False
        return True


class _ModelFiles(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    """Reads the SDK's files with a decoder that is ten times as fast. Plain dictionaries keep the order, too."""

    def load_file(self, file_path: str) -> Any:
        """What is in the file of this name, which lacks its extension; None when there is none. Raises ValueError when
        it is no JSON."""
        for extension, opened in _FORMATS.items():
            if not Path(file_path + extension).is_file():
                continue
            with opened(file_path + extension, "rb") as file:
                try:
                    return msgspec.json.decode(file.read())
                except msgspec.DecodeError as error:
                    raise ValueError(f"{file_path}{extension}: {error}") from error
        return None
