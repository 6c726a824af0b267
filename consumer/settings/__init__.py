"""The configuration: its model, the reading of its YAML file, and its JSON Schema.

`load_settings` reads a file into `Settings` or raises `ConfigError` with every problem and its line; `settings_from`
does the same with a mapping from code.
"""

from consumer.settings.errors import ConfigError, Problem
from consumer.settings.load import load_settings, settings_from
from consumer.settings.model import Settings

__all__ = ["ConfigError", "Problem", "Settings", "load_settings", "settings_from"]
