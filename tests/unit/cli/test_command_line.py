"""What all verbs have in common: how the config file is named, help without waiting, suggestions, completion."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from consumer.cli.main import main
from consumer.cli.output import Styled, grid, table

SLOW = ("asyncio", "pydantic", "yaml", "msgspec", "structlog", "aiohttp", "botocore", "aioboto3", "rich")
WITHOUT_CONFIG = {"schema", "import-esm", "completion"}


def verbs(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every verb of the tree that is no group, by its words."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from verbs(found, (*path, name))


VERBS = dict(verbs())


def run(*words: str) -> tuple[int, str]:
    if words[0] == "run":  # the daemon takes over signals and logging of its process
        command = [sys.executable, "-m", "consumer", *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return ended.returncode, ended.stdout + ended.stderr
    done = CliRunner().invoke(main, list(words))
    return done.exit_code, done.output


def test_help_imports_nothing_that_takes_time() -> None:
    """In a process of its own, for every verb; the times that this saves are in docs/performance.md."""
    script = f"""
import sys
from click.testing import CliRunner
from consumer.cli.main import main
for words in {[list(path) for path in VERBS]!r}:
    done = CliRunner().invoke(main, [*words, "--help"])
    assert done.exit_code == 0 and "Usage:" in done.output, (words, done.output)
    found = [name for name in {SLOW!r} if name in sys.modules]
    if found:
        sys.exit(f"{{' '.join(words)}} --help imports {{', '.join(found)}}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [path for path in VERBS if path[0] not in WITHOUT_CONFIG], ids=" ".join)
def test_the_config_file_is_an_option_or_the_argument(path: tuple[str, ...], tmp_path: Path) -> None:
    """Of two it is said which; a file that is not there is named in either case."""
    event = tmp_path / "event.json"
    event.write_text("{}")
    needed = {
        ("filter", "test"): ("--event", str(event)),
        ("invoke",): ("--event", str(event)),
        ("import-kcl",): ("--table", "old"),
        ("replay",): ("--from", "trim_horizon"),
        ("dlq", "show"): ("--key", "digest"),
        ("leases", "show"): ("shardId-1",),
        ("leases", "reset"): ("--all",),
    }.get(path, ())
    missing, other = str(tmp_path / "missing.yaml"), str(tmp_path / "other.yaml")
    for config in ([missing], ["--config", missing], ["-c", missing]):
        code, output = run(*path, *config, *needed)
        assert (code, "missing.yaml" in output) == (78, True), output
    code, output = run(*path, other, "--config", missing, *needed)
    assert code == 2, output
    if path != ("dlq", "show"):
        assert f"two config files: --config {missing} and the argument {other}" in output


@pytest.mark.parametrize("path", [("run",), ("check-config",), ("init",), ("dlq", "list")], ids=" ".join)
def test_no_config_file_is_a_usage_error(path: tuple[str, ...]) -> None:
    code, output = run(*path)
    assert (code, "no config file: give one, with --config FILE or as the argument" in output) == (2, True)


def test_a_letter_is_the_second_argument(tmp_path: Path) -> None:
    """Or the only one, beside --config."""
    missing = str(tmp_path / "missing.yaml")
    for words in ([missing, "0123456789abcdef"], ["0123456789abcdef", "--config", missing]):
        code, output = run("dlq", "show", *words)
        assert (code, "missing.yaml" in output) == (78, True), output


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["rum"], "No such command 'rum'. Did you mean run?"),
        (["helth"], "Did you mean health?"),
        (["dlq", "redrvie"], "Did you mean redrive?"),
        (["filter", "tset"], "Did you mean test?"),
        (["run", "--confg", "x"], "Did you mean '--config'?"),
    ],
)
def test_did_you_mean(words: list[str], hint: str) -> None:
    code, output = run(*words)
    assert code == 2
    assert hint.replace("'", "") in output.replace("'", "")


def test_nothing_is_suggested_for_what_is_like_nothing() -> None:
    code, output = run("frobnicate")
    assert (code, output.endswith("No such command 'frobnicate'.\n")) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    code, script = run("completion", shell)
    assert code == 0
    assert "_STREAM_CONSUMER_COMPLETE" in script


def test_completion_knows_the_verbs() -> None:
    """What the script asks for, with the words so far in the environment."""
    done = CliRunner().invoke(
        main,
        [],
        prog_name="stream-consumer",
        env={
            "_STREAM_CONSUMER_COMPLETE": "bash_complete",
            "COMP_WORDS": "stream-consumer dlq re",
            "COMP_CWORD": "2",
        },
    )
    assert "plain,redrive" in done.output


def test_tables_are_plain_where_nobody_sees_colours() -> None:
    rows = [["SHARD", "STATE"], ["shardId-1", Styled("halted", "red")], ["s", "a\x1b[31m\n"]]
    assert table(rows) == "SHARD      STATE\nshardId-1  halted\ns          a\\x1b[31m\\n"


def test_tables_have_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless NO_COLOR is set."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [["STATE"], [Styled("halted", "red")]]
    assert "\x1b[31mhalted" in table(rows)
    monkeypatch.setenv("NO_COLOR", "1")
    assert table(rows) == "STATE\nhalted"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    wide = [["NOTE"], ["x" * 200]]
    assert table(wide) == "NOTE\n" + "x" * 200, "nothing is cut"


def test_on_a_narrow_screen_the_ids_stay_whole() -> None:
    """The other cells are cut."""
    shard_id = "shardId-00000001790000000000-5b1e7c2d"
    text = io.StringIO()
    rows = [["SHARD", "OWNER", "NOTE"], [shard_id, "host-a/11/01234567", "records were trimmed before they were read"]]
    Console(file=text, width=60).print(grid(rows, shrink=True))
    assert max(map(len, text.getvalue().splitlines())) <= 60
    assert shard_id in text.getvalue()
    assert "…" in text.getvalue()
