"""`stream-consumer schema`: the JSON Schema of the configuration file."""

from __future__ import annotations

import click


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file.

    Editors with a YAML language server use it for completion and documentation; see the first line of
    config/consumer.yaml.
    """
    from consumer.settings.printed import json_schema_text

    click.echo(json_schema_text(), nl=False)
