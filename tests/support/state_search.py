"""A breadth-first search over all the states that an abstract machine can reach."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


def search(
    start: S, steps: Callable[[S], Iterable[tuple[str, S]]], broken: Callable[[S], str], most: int
) -> tuple[int, list[str] | None]:
    """How many states can be reached, and the shortest way to a violation if there is one: the names of its steps, and
    what is ``broken`` then ("" where nothing is). AssertionError for more than ``most`` states."""
    came_from: dict[S, tuple[S, str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        for name, following in steps(state):
            if following in came_from:
                continue
            came_from[following] = (state, name)
            if found := broken(following):
                return len(came_from), [*way_to(following, came_from), found]
            waiting.append(following)
        if len(came_from) > most:
            raise AssertionError(f"more than {most} states: the model has lost its bounds")
    return len(came_from), None


def way_to(state: S, came_from: dict[S, tuple[S, str] | None]) -> list[str]:
    """The names of the steps that lead to a state."""
    names: list[str] = []
    while (step := came_from[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]
