from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recon.capture.capture import Capture, Photo, View
from recon.capture.split import split


def capture_of(count: int, held_out: frozenset[int] = frozenset()) -> Capture:
    def load() -> Photo:
        raise AssertionError("no pixel is needed")

    views = tuple(View(f"{i:03d}.jpg", 4, 3, load, held_out=i in held_out) for i in range(count))
    return Capture(Path(), "photos", views, own_split=bool(held_out))


def test_every_eighth_in_name_order_is_held_out() -> None:
    train, validation, held_out = split(capture_of(20))
    assert held_out == [0, 8, 16]
    assert validation == [10]  # the middle of the 17 others
    assert sorted(train + validation + held_out) == list(range(20))


def test_name_order_counts_not_the_order_of_views() -> None:
    capture = capture_of(20)
    train, validation, held_out = split(replace(capture, views=capture.views[::-1]))
    assert held_out == [19, 11, 3]
    assert train[0] == 18
    assert validation == [9]


@pytest.mark.parametrize(("count", "validating"), [(8, 1), (22, 1), (97, 8), (400, 10)])
def test_validation_is_a_tenth_at_least_one_at_most_ten(count: int, validating: int) -> None:
    train, validation, held_out = split(capture_of(count))
    assert len(validation) == validating
    assert len(train) + len(validation) + len(held_out) == count
    assert set(train).isdisjoint(validation)


@pytest.mark.parametrize("count", [2, 7])
def test_few_views_are_all_fitted_to(count: int) -> None:
    assert split(capture_of(count)) == (list(range(count)), [], [])


def test_own_split_is_kept() -> None:
    train, validation, held_out = split(capture_of(30, frozenset({3, 4})))
    assert held_out == [3, 4]
    assert len(train) == 26
    assert len(validation) == 2
    assert split(capture_of(9, frozenset({0, 1}))) == (list(range(2, 9)), [], [0, 1])
