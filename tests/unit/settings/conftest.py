"""Writing a configuration file and loading it, as the daemon does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from consumer.settings.errors import ConfigError
from consumer.settings.load import load_settings
from consumer.settings.model import Settings

Load = Callable[..., Settings]
Problems = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a text as the file `c.yaml`."""

    def run(text: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
        file = tmp_path / "c.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_settings(file, environ or {})

    return run


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Problems:
    """The lines of the error a text gives, without the directory in front."""

    def run(text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, environ)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return run
