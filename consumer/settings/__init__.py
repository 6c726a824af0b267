"""The configuration: its model, the reading of its YAML file, and its JSON Schema.

``load.load_settings`` reads a file into ``model.Settings`` or raises ``errors.ConfigError`` with every problem and its
line; ``load.settings_from`` does the same with a mapping from code. Nothing is imported here: a health check reads the
file every few seconds, and must not wait for the model.
"""
