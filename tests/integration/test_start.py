"""What the start of the daemon leaves out, in a process of its own. The times that this saves are in
docs/performance.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[2] / "config" / "consumer.yaml"
# The daemon up to where it starts to work; then it says what was imported for that.
UP_TO_WORK = """
import gc, json, sys
from consumer.cli import run
from consumer.cli.main import main
walks = []
gc.callbacks.append(lambda phase, info: walks.append(info["generation"]) if phase == "stop" else None)
async def serve(daemon, grace, early):
    collected, frozen = list(walks), gc.get_freeze_count()
    from consumer.worker.gc_tuning import tune
    tune()
    sys.__stdout__.write(json.dumps({
        "modules": sorted(sys.modules),
        "walks": collected,
        "last": walks[len(collected):],
        "frozen": gc.get_freeze_count() - frozen,
    }))
    import rich.console  # user code may
run._serve = serve
main()
"""


def test_what_the_daemon_does_not_use_is_not_imported_and_the_start_is_not_searched_for_garbage() -> None:
    command = [sys.executable, "-c", UP_TO_WORK, "run", "--config", str(SAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=SAMPLE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    # rich is what structlog would import for the console of a developer, pygments what rich does.
    unused = {"rich", "pygments", "multiprocessing", "consumer.cli.output", "consumer.testing", "tkinter"}
    assert unused & set(found["modules"]) == set()
    assert {"structlog", "aiobotocore.session", "consumer.worker.app"} <= set(found["modules"])  # nothing comes later
    assert found["walks"].count(2) == 0
    assert len(found["walks"]) < 20  # Python's own thresholds make hundreds of them
    assert found["last"] == []  # a collection now would stop the loop
    assert found["frozen"] > 10_000


# An inline handler that logs exceptions with structlog's own console, as user code does with the library it knows.
USES_RICH = """
import asyncio, io, sys
from consumer.cli import run
with run._hidden("rich"):
    import structlog
assert "rich" not in sys.modules
from consumer.handlers.inline import InlineHandler
asyncio.run(InlineHandler(sys.argv[1], sys.argv[2]).start())
out = io.StringIO()
sys.modules["with_rich"].show(out, (ValueError, ValueError("broken"), None))
print(out.getvalue())
"""


def test_inline_user_code_has_all_of_structlog(tmp_path: Path) -> None:
    (tmp_path / "with_rich.py").write_text(
        "import structlog\n"
        "show = structlog.dev.RichTracebackFormatter(width=100, color_system=None)\n"
        "def handler(records, context): structlog.dev.rich_traceback\n"
    )
    command = [sys.executable, "-c", USES_RICH, "with_rich:handler", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=SAMPLE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ValueError: broken" in done.stdout
