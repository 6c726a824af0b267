"""The last line of ``make demo``: what it counts, so that "nothing lost" can be believed."""

from __future__ import annotations

from demo.demo import judge, late
from demo.producer import Change

A1, A2, A3 = [("INSERT", 1), ("MODIFY", 2), ("REMOVE", 2)]
EXPECTED: dict[str, list[Change]] = {"a": [A1, A2, A3], "b": [("INSERT", 1)]}


def test_everything_came_out() -> None:
    verdict = judge(EXPECTED, [("a", A1), ("b", ("INSERT", 1)), ("a", A2)], [("a", A3)])
    assert verdict.line == "demo: produced=4 handled=3 dead_lettered=1 lost=0 out_of_order=0"
    assert verdict.again == 0


def test_what_came_out_nowhere_is_lost() -> None:
    verdict = judge(EXPECTED, [("a", A1), ("a", A3)], [])
    assert (verdict.lost, verdict.handled) == (2, 2)


def test_a_record_after_a_later_one_of_its_key_is_out_of_order() -> None:
    verdict = judge(EXPECTED, [("a", A1), ("a", A3), ("a", A2), ("b", ("INSERT", 1))], [])
    assert (verdict.out_of_order, verdict.lost) == (1, 0)


def test_a_repetition_is_neither_counted_twice_nor_out_of_order() -> None:
    verdict = judge(EXPECTED, [("a", A1), ("a", A2), ("a", A1), ("a", A3), ("b", ("INSERT", 1))], [])
    assert (verdict.handled, verdict.again, verdict.out_of_order) == (4, 1, 0)


def test_a_record_that_was_handled_and_dead_lettered_counts_as_handled() -> None:
    verdict = judge({"a": [A1]}, [("a", A1)], [("a", A1)])
    assert (verdict.handled, verdict.dead_lettered) == (1, 0)


def test_what_was_put_after_a_newer_change_of_its_item_may_be_missing() -> None:
    put = [("a", A1), ("a", A3), ("b", ("INSERT", 1)), ("a", A2), ("a", A2)]
    verdict = judge(EXPECTED, [("a", A1), ("a", A3), ("b", ("INSERT", 1))], [], put)
    assert verdict.line == "demo: produced=4 handled=3 dead_lettered=0 lost=0 out_of_order=0"
    assert verdict.superseded == 1


def test_what_was_put_in_time_must_come_out() -> None:
    """Also when it was put once more later; and the last change of an item always was."""
    put = [("a", A1), ("a", A2), ("a", A3), ("a", A2), ("a", A1), ("a", A3)]
    assert late(put) == set()
    assert judge({"a": [A1, A2, A3]}, [("a", A1)], [], put).lost == 2


def test_what_was_put_late_and_handled_all_the_same_is_out_of_order() -> None:
    put = [("a", A2), ("a", A1)]
    verdict = judge({"a": [A1, A2]}, [("a", A2), ("a", A1)], [], put)
    assert (verdict.superseded, verdict.lost, verdict.out_of_order) == (0, 0, 1)


def test_versions_go_on_behind_a_deletion() -> None:
    again = ("INSERT", 3)
    assert late([("a", again), ("a", A3)]) == {("a", A3)}
    assert late([("a", A3), ("a", A2)]) == {("a", A2)}
