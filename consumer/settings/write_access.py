"""Who else may write what decides which code runs: the configuration file, the modules in ``handler.path``, and the
folders that lead to them, in which either could be replaced.

Trusted are root, the user of this process, and the owner of the configuration file, whom whoever starts the daemon with
it trusts already (so a checkout of somebody's, mounted into a container, works). A group is trusted when it can hold
nobody else: root's, a user's own (as most distributions make one for each user), and one of ours without a name, as
Kubernetes' ``fsGroup``. What cannot be written by anybody, because its mount is read-only, is nobody's.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import all_suffixes
from pathlib import Path

MOST_FILES = 20_000
"""Files that are looked at in a folder of handlers: about a tenth of a second."""

_SUFFIXES = tuple(all_suffixes())
_ALL_USERS = "4294967295"


@dataclass(frozen=True, slots=True)
class Finding:
    """``path`` may be written by ``who``."""

    path: Path
    who: str


class WriteAccess:
    """Looks for foreign write access. ``trusted`` are the ids of users besides root and the one of this process."""

    def __init__(self, *trusted: int) -> None:
        self._users = {0, os.geteuid(), *trusted, *_unmapped_users()}
        self._seen: set[Path] = set()
        self._excused: set[Path] = set()  # those of them that only their sticky bit protects

    def of_file(self, file: Path) -> Iterator[Finding]:
        """The file, and the folders above it; those of a link as well as those of what it leads to. Nothing where it
        cannot be looked at."""
        for path in (file.absolute(), file.resolve()):
            yield from self._of_path(path)

    def of_folder(self, folder: Path) -> Iterator[Finding]:
        """The folder, those above it, the modules in it, and the folders below that hold any. There the sticky bit does
        not help: a new file can stand before another module."""
        root = folder.resolve()
        yield from self._of_path(root, sticky_helps=False)
        looked_at = 0
        for here, folders, names in os.walk(root):
            folders[:] = sorted(name for name in folders if "." not in name)  # others cannot be packages
            modules = [Path(here, name) for name in sorted(names) if name.endswith(_SUFFIXES)]
            if modules:
                yield from self._of_path(Path(here), sticky_helps=False)
            for module in [*modules, *(Path(here, name) for name in folders)]:
                if module.is_symlink():
                    yield from self._of_path(module.resolve())
                elif module in modules:
                    yield from self._of_one(module, sticky_helps=False)
            looked_at += len(folders) + len(names)
            if looked_at > MOST_FILES:
                return

    def _of_path(self, path: Path, *, sticky_helps: bool = True) -> Iterator[Finding]:
        yield from self._of_one(path, sticky_helps=sticky_helps)
        for parent in path.parents:
            yield from self._of_one(parent, sticky_helps=True)

    def _of_one(self, path: Path, *, sticky_helps: bool) -> Iterator[Finding]:
        if path in self._seen and (sticky_helps or path not in self._excused):
            return
        self._seen.add(path)
        self._excused.discard(path)
        try:
            found = path.stat()
            read_only = os.statvfs(path).f_flag & os.ST_RDONLY
        except OSError:
            return
        if read_only:
            return
        if found.st_uid not in self._users:
            yield Finding(path, f"its owner {_user(found.st_uid)}, who is neither root nor the user of this process")
        if sticky_helps and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
            self._excused.add(path)
            return  # others can add to it and cannot replace what is there
        if found.st_mode & stat.S_IWOTH:
            yield Finding(path, "everybody")
        elif found.st_mode & stat.S_IWGRP and not self._is_trusted_group(found.st_gid):
            yield Finding(path, f"the group {_group(found.st_gid)}")

    def _is_trusted_group(self, number: int) -> bool:
        if number == 0:
            return True
        try:
            group = grp.getgrgid(number)
        except KeyError:
            return number in {os.getegid(), *os.getgroups()}
        try:
            user = pwd.getpwnam(group.gr_name)
        except KeyError:
            return False
        own = user.pw_gid == number and user.pw_uid in self._users
        return own and set(group.gr_mem) <= {group.gr_name}


def _unmapped_users() -> set[int]:
    """The id that files of users outside a user namespace (a rootless container) have in it: nobody there is one."""
    try:
        first, _, count = Path("/proc/self/uid_map").read_text().split("\n")[0].split()
        if (first, count) == ("0", _ALL_USERS):
            return set()
        return {int(Path("/proc/sys/kernel/overflowuid").read_text())}
    except (OSError, ValueError):
        return set()


def _user(number: int) -> str:
    try:
        return f"{pwd.getpwuid(number).pw_name!r}"
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return f"{grp.getgrgid(number).gr_name!r}"
    except KeyError:
        return str(number)
