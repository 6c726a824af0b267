"""The environment and command line of a worker process: what Lambda code expects to find, and how it starts."""

from __future__ import annotations

import datetime as dt
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from consumer.domain.function_name import VARIABLE, function_name
from consumer.handlers.runtime.context import DEFAULT_MEMORY_MB, FUNCTION_VERSION

# The package of the daemon. It goes through the command line, not through PYTHONPATH, which belongs to the user and is
# inherited by everything the user's code starts. In the worker it has another name, and no part of ``sys.path``.
_PACKAGE = str(Path(__file__).resolve().parents[1])
# The working directory is the daemon's, no place for modules: as ``python -P``, which only 3.11 knows. What is older
# than the runtime can be answers by hand (``runtime/wire.py``).
_BOOTSTRAP = """
import sys
if sys.path[:1] == ['']:
    del sys.path[0]
if sys.version_info < (3, 9):
    import json, os, struct
    found = '%s is Python %s' % (sys.executable, sys.version.split()[0])
    text = json.dumps({'kind': 'import_failed', 'message': 'handler.python: %s; 3.9 or newer is needed' % found})
    os.write(int(sys.argv[2]), struct.pack('>II', len(text), 0) + text.encode())
    sys.exit(1)
import types
package = types.ModuleType('_stream_consumer')
package.__path__ = [sys.argv[1]]
sys.modules[package.__name__] = package
from _stream_consumer.handlers.runtime.main import main
main()
"""


def worker_command(python: str | None, descriptor: int) -> list[str]:
    """The command of a worker in the interpreter ``python``, or in the daemon's own."""
    arguments = [_PACKAGE, str(descriptor), str(os.getpid()), "stream-consumer-worker"]
    return [python or sys.executable, "-c", _BOOTSTRAP.strip(), *arguments]


def lambda_environment(
    own: Mapping[str, str], application: str, folder: Path, region: str | None, target: str = ""
) -> dict[str, str]:
    """What a Lambda function finds, where the daemon's environment does not say otherwise: ``LAMBDA_TASK_ROOT`` is the
    folder where it starts, the time zone is UTC. The former switches the X-Ray SDKs on, which would look for a daemon
    that is not there, so they are told to stay quiet. ``target`` is empty for a program, which takes its handler as an
    argument."""
    environment = worker_environment(own, application, target, region)
    environment.setdefault("LAMBDA_TASK_ROOT", str(folder))
    environment.setdefault("AWS_XRAY_SDK_ENABLED", "false")
    environment.setdefault("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
    environment.setdefault("TZ", ":UTC")
    return environment


def worker_environment(own: Mapping[str, str], application: str, target: str, region: str | None) -> dict[str, str]:
    """The daemon's own environment, and those of Lambda's variables that any handler may ask for, where the user set
    none.

    A variable that is set wins, so that code moved off Lambda can keep its function name (Powertools derives
    idempotency keys from it).
    """
    function = function_name(own, application)
    environment = {**own, VARIABLE: function}
    environment.setdefault("AWS_LAMBDA_FUNCTION_VERSION", FUNCTION_VERSION)
    environment.setdefault("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", DEFAULT_MEMORY_MB)
    environment.setdefault("AWS_LAMBDA_LOG_GROUP_NAME", f"/aws/lambda/{function}")
    today = dt.datetime.now(tz=dt.UTC)
    environment.setdefault("AWS_LAMBDA_LOG_STREAM_NAME", f"{today:%Y/%m/%d}/[{FUNCTION_VERSION}]{uuid.uuid4().hex}")
    environment.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
    if target:
        environment.setdefault("_HANDLER", target.replace(":", "."))
    known = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or region
    if known:
        environment.setdefault("AWS_REGION", known)
        environment.setdefault("AWS_DEFAULT_REGION", known)
    return environment
