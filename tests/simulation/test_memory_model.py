"""What workers make from memory, searched exhaustively: nothing breaks with the rules, and something without each."""

import pytest

from tests.simulation.memory_model import Rules, search


def test_the_rules_hold() -> None:
    """No finished shard is opened again, and no epoch is handed out twice, whoever sleeps and whenever."""
    states, way = search(Rules())
    assert way is None, way
    assert states > 10_000, "the model must not be trivial"


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        (Rules(age=False), "a finished shard is open again"),
        (Rules(session=False), "a finished shard is open again"),
        (Rules(above=False), "an epoch repeats"),
    ],
)
def test_without_one_of_them_there_is_a_way(rules: Rules, broken: str) -> None:
    _, way = search(rules)
    assert way is not None
    assert way[-1] == broken
