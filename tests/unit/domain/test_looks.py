"""When a shard near its tip is looked at again."""

from __future__ import annotations

import pytest

from consumer.domain.looks import NEARLY_FULL, Looks

USUAL = 0.2


def test_a_pause_counts_from_the_first_read_of_a_look() -> None:
    looks = Looks()
    looks.read(10.0, 0.1)
    assert looks.until_next(USUAL, 10.05) == pytest.approx(0.15)


def test_full_pages_belong_to_the_same_look() -> None:
    looks = Looks()
    for asked_at in (10.0, 10.05, 10.1):
        looks.read(asked_at, 1.0)
        assert looks.until_next(0.0, asked_at + 0.05) == 0.0
        assert looks.until_next(0.3, asked_at + 0.05) == 0.3, "what the source demands between any two reads"
    looks.read(10.15, 0.2)
    assert looks.until_next(USUAL, 10.18) == pytest.approx(0.02)


def test_the_next_look_counts_anew() -> None:
    looks = Looks()
    looks.read(10.0, 0.1)
    looks.until_next(USUAL, 10.05)
    looks.read(10.2, 0.1)
    assert looks.until_next(USUAL, 10.23) == pytest.approx(0.17)


def test_a_look_that_took_longer_than_the_pause_is_followed_at_once() -> None:
    looks = Looks()
    looks.read(10.0, 1.0)
    looks.read(10.5, 0.1)
    assert looks.until_next(USUAL, 10.6) == 0.0


def test_a_page_is_asked_for_when_it_is_nearly_full() -> None:
    looks = Looks()
    looks.read(10.0, 0.5)
    looks.until_next(USUAL, 10.0)
    looks.read(10.2, 1.0)
    looks.read(10.21, 1.0)
    looks.read(10.22, 0.2)  # 2.2 pages in 0.22 s
    assert looks.until_next(USUAL, 10.23) == pytest.approx(NEARLY_FULL * 0.1 - 0.01)


def test_slow_arrivals_are_no_reason_to_look_sooner_or_later() -> None:
    looks = Looks()
    looks.read(10.0, 0.01)
    looks.until_next(USUAL, 10.0)
    looks.read(10.2, 0.01)
    assert looks.until_next(USUAL, 10.2) == USUAL


def test_nothing_read_and_a_clock_that_was_set_back_are_no_reason_either() -> None:
    looks = Looks()
    looks.read(10.0, 0.0)
    assert looks.until_next(USUAL, 10.0) == USUAL
    looks.read(10.2, 0.0)
    assert looks.until_next(USUAL, 10.2) == USUAL
    looks.read(9.0, 0.5)
    assert 0.0 <= looks.until_next(USUAL, 8.0) <= USUAL
