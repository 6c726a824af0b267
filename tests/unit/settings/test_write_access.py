"""What others may write must not decide what code runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from consumer.settings.load import INSECURE_OK
from consumer.settings.write_access import WriteAccess
from tests.unit.settings.conftest import Load, Problems
from tests.unit.settings.test_bad_files import BASE

CODE = BASE.replace("{target", "{path: app, target")
NOBODY = 4_000_000  # an id that no user and no group has
IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can give files away")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder of handlers: two modules, one of them in a package, and data."""
    package = tmp_path / "app" / "shop"
    package.mkdir(parents=True)
    for name in ("shop/__init__.py", "shop/orders.py", "main.py", "x.csv"):
        (tmp_path / "app" / name).touch()
    (tmp_path / "app" / "uploads").mkdir()
    return tmp_path / "app"


def findings(problems: Problems, text: str = CODE) -> list[str]:
    return [line.split(" (")[0] for line in problems(text)]


def test_what_only_its_user_may_write_is_fine(load: Load, app: Path) -> None:
    load(CODE)
    (app / "x.csv").chmod(0o666)  # data, and a folder without modules
    (app / "uploads").chmod(0o777)
    (app / ".git").mkdir()
    (app / ".git" / "hook.py").touch()
    (app / ".git" / "hook.py").chmod(0o666)  # cannot be imported
    load(CODE)


@pytest.mark.parametrize("name", ["main.py", "shop", "shop/orders.py", "shop/__init__.py"])
def test_modules_and_packages_that_everybody_may_write(problems: Problems, load: Load, app: Path, name: str) -> None:
    (app / name).chmod(0o777)
    assert findings(problems) == [f"c.yaml:3: handler.path: must not be writable by everybody: app/{name}"]
    load(CODE, {INSECURE_OK: "1"})
    load(CODE.replace("'app:handler'", "'http://h/', kind: http"))  # no code of ours is in it


def test_the_file_and_the_folder_themselves(problems: Problems, tmp_path: Path, app: Path) -> None:
    problems(CODE + "bacth: 1\n")  # writes the file
    (tmp_path / "c.yaml").chmod(0o666)
    app.chmod(0o777)
    assert findings(problems) == [
        "c.yaml:1: file: must not be writable by everybody",
        "c.yaml:3: handler.path: must not be writable by everybody",
    ]


def test_a_parent_in_which_all_could_be_replaced(problems: Problems, load: Load, tmp_path: Path, app: Path) -> None:
    tmp_path.chmod(0o777)
    assert findings(problems) == [f"c.yaml:1: file: must not be writable by everybody: {tmp_path}"]
    tmp_path.chmod(0o1777)  # as /tmp
    load(CODE)
    app.chmod(0o1777)  # but new modules could be put beside those that are there
    assert findings(problems) == ["c.yaml:3: handler.path: must not be writable by everybody"]


def test_links_are_followed_to_where_they_lead(problems: Problems, load: Load, tmp_path: Path, app: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.py").touch()
    (app / "linked.py").symlink_to(elsewhere / "linked.py")
    (app / "gone.py").symlink_to(elsewhere / "gone.py")
    load(CODE)
    elsewhere.chmod(0o777)
    assert findings(problems) == ["c.yaml:3: handler.path: must not be writable by everybody: elsewhere"]


def test_a_file_that_is_a_link(tmp_path: Path) -> None:
    """As a mounted ConfigMap is: where the link is, and where it leads to."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "there" / "c.yaml").touch()
    (tmp_path / "here" / "c.yaml").symlink_to(tmp_path / "there" / "c.yaml")
    for name in ("here", "there"):
        (tmp_path / name).chmod(0o777)
        [found] = WriteAccess().of_file(tmp_path / "here" / "c.yaml")
        assert found.path == tmp_path / name
        (tmp_path / name).chmod(0o755)


def test_many_findings_are_one_problem(problems: Problems, app: Path) -> None:
    for number in range(100):
        (app / f"m{number:03}.py").touch()
        (app / f"m{number:03}.py").chmod(0o666)
    assert findings(problems) == ["c.yaml:3: handler.path: must not be writable by everybody: app/m000.py, and 99 more"]


@only_root
def test_owners_and_groups(problems: Problems, load: Load, tmp_path: Path, app: Path) -> None:
    module = app / "main.py"
    os.chown(module, NOBODY, -1)
    [found] = findings(problems)
    assert f"by its owner {NOBODY}, who is neither root nor the user of this process: app/main.py" in found
    os.chown(tmp_path / "c.yaml", NOBODY, -1)  # whoever starts it with this file trusts its owner
    load(CODE)
    os.chown(module, 0, NOBODY)
    load(CODE)
    module.chmod(0o664)
    assert findings(problems) == [f"c.yaml:3: handler.path: must not be writable by the group {NOBODY}: app/main.py"]
    os.chown(module, 0, 0)
    load(CODE)


@only_root
def test_a_group_that_can_hold_nobody_else_is_trusted(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own, as distributions make it, and one without a name that is ours (``fsGroup``)."""
    os.chown(app / "main.py", 0, NOBODY)
    (app / "main.py").chmod(0o664)
    assert list(WriteAccess().of_folder(app))
    monkeypatch.setattr(os, "getgroups", lambda: [NOBODY])
    assert not list(WriteAccess().of_folder(app))


def test_large_folders_are_looked_at_up_to_a_bound(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumer.settings.write_access.MOST_FILES", 1)
    (app / "shop" / "orders.py").chmod(0o666)
    assert not list(WriteAccess().of_folder(app))


def test_a_sticky_folder_that_leads_to_the_file_may_still_not_hold_the_modules(tmp_path: Path) -> None:
    """Whichever of the two is looked at first."""
    tmp_path.chmod(0o1777)
    file = tmp_path / "c.yaml"
    file.touch(0o600)
    access = WriteAccess()
    assert not list(access.of_file(file))
    assert [found.who for found in access.of_folder(tmp_path)] == ["everybody"]
    assert not list(access.of_folder(tmp_path))


PROGRAM = BASE.replace("{target: 'app:handler'}", "{path: app, command: [./bootstrap, --fast]}")


def test_a_program_that_others_may_write_is_refused(load: Load, problems: Problems, app: Path) -> None:
    program = app / "bootstrap"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    handler = load(PROGRAM).handler
    assert (handler.program, handler.code) == (program, "./bootstrap --fast")
    program.chmod(0o757)
    assert findings(problems, PROGRAM) == ["c.yaml:3: handler.command: must not be writable by everybody"]
    load(PROGRAM, {INSECURE_OK: "1"})


def test_an_interpreter_that_others_may_write_is_refused(load: Load, problems: Problems, app: Path) -> None:
    """It is taken by the place where it stands: a virtual environment is known by its link."""
    real, link = app / "python3", app / "bin" / "python"
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    link.parent.mkdir()
    link.symlink_to(real)
    text = BASE.replace("{target: 'app:handler'}", "{path: app, target: 'main:handler', python: app/bin/python}")
    assert load(text).handler.python == link
    real.chmod(0o757)
    (found,) = findings(problems, text)
    assert found.startswith("c.yaml:3: handler.python: must not be writable by everybody: app/bin/python")


def test_folders_with_names_that_are_no_identifiers_hold_modules_too(app: Path) -> None:
    """``my-functions/app:handler`` is a target."""
    module = app / "my-functions" / "app.py"
    module.parent.mkdir()
    module.touch()
    module.chmod(0o666)
    assert [found.path for found in WriteAccess().of_folder(app)] == [module]
