"""Importing ``module:attribute`` so that every way this can fail is one clear line.

The module keeps its import name (``app:handler`` is module ``app``): Powertools derives idempotency keys from it,
and pickles and logger names must be the ones the code had on Lambda.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...domain.target_name import split_target
from .faults import describe, wants_network

_OWN_FOLDER = str(Path(__file__).resolve().parents[1])
_PACKAGE = __name__.partition(".")[0]


class TargetError(Exception):
    """The target cannot be imported. ``may_pass``: it wanted the network and did not get it."""

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def load_target(target: str, path: str | None) -> Callable[..., Any]:
    """Import ``target`` with ``path`` first on ``sys.path``. TargetError when there is no callable there."""
    try:
        module_name, names = split_target(target)
    except ValueError as error:
        raise _refuse(target, str(error)) from error
    if path is not None:
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, path)
        importlib.invalidate_caches()
    found: Any = _import(target, module_name, path)
    where = module_name
    for name in names:
        try:
            found = getattr(found, name)
        except AttributeError as error:
            hint = _did_you_mean(name, [known for known in dir(found) if not known.startswith("_")])
            raise _refuse(target, f"{_file_of(module_name)}{where} has no attribute {name!r}{hint}") from error
        except Exception as error:
            raise _refuse(target, f"{_place(error, path)}{type(error).__name__}: {describe(error)}") from error
        where += f".{name}"
    if not callable(found):
        raise _refuse(target, f"{_file_of(module_name)}{where} is not callable, it is a {type(found).__name__}")
    problem = _wrong_parameters(found)
    if problem:
        called = "is called with two arguments (event or records, and context), which it does not take"
        raise _refuse(target, f"{_file_of(module_name)}{where} {called}: {problem}")
    return found  # type: ignore[no-any-return]  # user code: only its callability can be known


def _wrong_parameters(function: Callable[..., Any]) -> str:
    """Why a call with two arguments must fail; empty when it need not. Of the outermost function: what a decorator
    wraps may take others."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # noqa: BLE001  # some callables have none, and user code may have a say in it
        return ""
    try:
        signature.bind(None, None)
    except TypeError as error:
        return str(error)
    return ""


def _import(target: str, module_name: str, path: str | None) -> Any:
    try:
        return importlib.import_module(module_name)
    except BaseException as error:  # a module may raise anything while it is imported, SystemExit included
        if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name or ''}."):
            raise _refuse(target, _missing_module(module_name, error.name or "", path)) from error
        text = f"{_place(error, path)}{type(error).__name__}: {describe(error)}"
        raise _refuse(target, text, may_pass=wants_network(error)) from error


def _refuse(target: str, problem: str, *, may_pass: bool = False) -> TargetError:
    return TargetError(" ".join(f"handler.target {target!r}: {problem}".split())[:1500], may_pass=may_pass)


def _missing_module(module_name: str, missing: str, path: str | None) -> str:
    parent, _, leaf = missing.rpartition(".")
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", []))
    else:
        folders = [path] if path is not None else [entry for entry in sys.path if entry]
    hint = _did_you_mean(leaf, [module.name for module in pkgutil.iter_modules(folders)])
    if parent == _PACKAGE:  # inside the daemon
        hint = f" (with isolation: inline the name {parent!r} is the daemon's: use isolation: process)"
    looked = f" in {path}" if path is not None and not parent else ""
    wanted = "" if missing == module_name else f" (needed for {module_name!r})"
    return f"ModuleNotFoundError: there is no module {missing!r}{looked}{wanted}{hint}"


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _file_of(module_name: str) -> str:
    file = getattr(sys.modules.get(module_name), "__file__", None)
    return f"{file}: " if file else ""


def _place(error: BaseException, path: str | None) -> str:
    """``file:line: `` of the failure: the innermost line of the user's own code, else outside this package."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: "
    places = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen ", _OWN_FOLDER)) and frame.filename != importlib.__file__
    ]
    mine = [place for place in places if path is not None and place[0].startswith(path)]
    file, line = (mine or places or [("", 0)])[-1]
    return f"{file}:{line}: " if file else ""
