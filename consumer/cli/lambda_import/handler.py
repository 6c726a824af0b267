"""The section `handler`: the function's code, what runs it, and its time limit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from consumer.cli.lambda_import.commented_yaml import Reference, Writer
from consumer.cli.lambda_import.found import Function
from consumer.cli.lambda_import.intrinsics import Unresolved
from consumer.cli.lambda_import.options import Options
from consumer.cli.lambda_import.values import whole_number
from consumer.domain.target_name import split_target
from consumer.settings.units import format_duration

_MAX_FUNCTION_SECONDS = 900
_TARGET = Reference("${HANDLER_TARGET}")
_PYTHON = "python"
_JAVA_CLIENT = "com.amazonaws.services.lambda.runtime.api.client.AWSLambda"
_ARCHIVE = re.compile(r".*\.(zip|jar|war)|[a-z0-9]+://.*", re.IGNORECASE)


def write_handler(options: Options, function: Function | None, target: str | None, out: Writer) -> None:
    """What the file says about the function; ``target``, when it is given, instead of its code."""
    _Handler(options, function, target, out).write()


class _Handler:
    def __init__(self, options: Options, function: Function | None, target: str | None, out: Writer) -> None:
        self._options = options
        self._known = function is not None
        self._function: Mapping[Any, Any] = function.properties if function else {}
        self._default_timeout = function.default_timeout if function else 0
        self._target = target
        self._out = out

    def write(self) -> None:
        runtime, image = self._function.get("Runtime"), self._function.get("PackageType") == "Image"
        self._out.section("handler")
        behind_url = image if self._target is None else "://" in self._target
        if behind_url:
            self._out.value("kind", "http", "events are POSTed, for example to the function's container image")
        else:
            self._out.value("kind", "lambda", "the function's code runs as it is")
        if self._target is not None:
            self._out.value("target", self._target, "--target")
        elif image:
            self._image()
        elif isinstance(runtime, str) and not runtime.startswith(_PYTHON):
            self._program(runtime)
        else:
            self._code()
        if self._target is None and not image:
            self._path()
        self._out.value("timeout", *self._timeout())
        if not behind_url:
            self._processes()
        self._environment()

    def _image(self) -> None:
        reason = "start the function's container image and set HANDLER_TARGET to its URL, such as "
        url = "http://127.0.0.1:9000/2015-03-31/functions/function/invocations"
        self._options.note("PackageType", f"Image runs behind kind: http: {reason}{url}")
        self._out.value("target", _TARGET, "PackageType Image: the URL of the function's container")

    def _program(self, runtime: str) -> None:
        written = self._function.get("Handler")
        handler = written if isinstance(written, str) and written else Reference("${HANDLER}")
        path = self._function.get("CodeUri")
        archive = path if isinstance(path, str) and path.endswith(".jar") else Reference("${FUNCTION_JAR}")
        commands: dict[str, list[str]] = {
            "provided": ["./bootstrap"],
            "nodejs": ["npx", "aws-lambda-ric", handler],
            "java": ["java", "-cp", archive, _JAVA_CLIENT, handler],
            "ruby": ["aws_lambda_ric", handler],
            "go": [f"./{handler}" if handler is written else handler],
        }
        command = next((line for name, line in commands.items() if runtime.startswith(name)), None)
        self._out.value("command", command or [Reference("${HANDLER_COMMAND}")], f"Runtime {runtime}")
        reason = f"{runtime} runs as a program that speaks the Lambda Runtime API: handler.command starts it in "
        todo = "handler.path, where what it needs must be built" if command else "handler.path; set HANDLER_COMMAND"
        self._options.note("Runtime", reason + todo)

    def _code(self) -> None:
        written, runtime = self._function.get("Handler"), self._function.get("Runtime")
        if isinstance(runtime, Unresolved):
            self._options.note("Runtime", f"{runtime} is not known from here: Handler is taken for one of Python")
        if isinstance(written, str) and _is_target(written):
            self._options.note("Handler", f"{written} is looked for in handler.path, by default the folder of the file")
            ran = f"; it ran in {runtime}, and handler.python names another Python" if isinstance(runtime, str) else ""
            self._out.value("target", written, f"the function's Handler{ran}")
            return
        called = "FunctionArn" if self._options.is_set("FunctionArn") else "FunctionName"
        found = f"; its Handler is {written}" if written else ""
        self._options.note(
            called,
            f"a function is run from its code: put its Handler in handler.target, or set HANDLER_TARGET{found}",
        )
        self._out.value("target", _TARGET, "the function's Handler, or module:attribute")

    def _path(self) -> None:
        code = self._function.get("CodeUri")
        if isinstance(code, str) and not _ARCHIVE.fullmatch(code):
            path = code.rstrip("/") or "/"
            if path not in (".", "./"):
                self._out.value("path", path, "CodeUri; relative to this file, so keep it beside the template")
        elif code or self._function.get("InlineCode"):
            option = "CodeUri" if code else "InlineCode"
            self._options.note(option, "the code is not in a folder: put it into one, and its name into handler.path")

    def _timeout(self) -> tuple[Any, str]:
        option, value = "Timeout", self._function.get("Timeout")
        seconds = whole_number(1, _MAX_FUNCTION_SECONDS)(value)
        if isinstance(seconds, int):
            return format_duration(seconds), "the function's Timeout"
        if self._known and value is None:
            return format_duration(self._default_timeout), "the function has no Timeout: the default of its tool"
        hint = "such as 30s; `aws lambda get-function-configuration` shows it"
        found = f"{value} is not known from here" if self._known else "belongs to the function, not to the mapping"
        self._options.note(option, f"{found}: put it into handler.timeout, or set HANDLER_TIMEOUT, {hint}")
        shown = f"Timeout: {value}" if self._known else "the function's Timeout"
        return Reference("${HANDLER_TIMEOUT}"), f"{shown}; a shorter one would end calls that Lambda lets finish"

    def _processes(self) -> None:
        factor = whole_number(1, 10)(self._options.peek("ParallelizationFactor", 1))
        processes = max(2, factor) if isinstance(factor, int) else 10
        text = "Lambda starts as many as it needs, up to shards x ParallelizationFactor; here it is per worker"
        self._out.value("processes", processes, text)

    def _environment(self) -> None:
        variables = self._function.get("Environment")
        names = variables.get("Variables") if isinstance(variables, Mapping) else variables
        if names:
            listed = ", ".join(map(str, names)) if isinstance(names, Mapping) else str(names)
            self._options.note("Environment", f"the function's variables are the daemon's to set: {listed}")


def _is_target(handler: str) -> bool:
    try:
        split_target(handler)
    except ValueError:
        return False
    return "://" not in handler and not handler.startswith((".", "/"))
