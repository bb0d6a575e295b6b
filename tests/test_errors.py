"""Errors list what would have been accepted, and independent problems are reported together."""

from __future__ import annotations

from enum import StrEnum

import pytest

from exan_verify.errors import ExanError, GradientError, InputError, choice, raise_problems, unknown


class Fruit(StrEnum):
    APPLE = "apple"
    PEAR = "a pear"


def test_a_choice_is_a_member_or_an_error_that_lists_all_of_them():
    assert choice(Fruit, "a pear", "fruit") is Fruit.PEAR
    with pytest.raises(InputError) as caught:
        choice(Fruit, "plum", "fruit")
    assert str(caught.value) == "fruit='plum' is not known; use one of 'apple', 'a pear'"
    assert type(caught.value) is InputError
    with pytest.raises(GradientError, match="fruit='APPLE'"):
        choice(Fruit, "APPLE", "fruit", error=GradientError)


def test_what_is_not_a_name_at_all_is_refused_in_the_same_words():
    for value in (None, 3, ["apple"]):
        with pytest.raises(InputError, match=r"fruit=.* is not known; use one of 'apple'"):
            choice(Fruit, value, "fruit")  # type: ignore[arg-type]
    assert unknown("n", 3, ["1", "2"]) == "n=3 is not known; use one of '1', '2'"


def test_several_problems_are_one_error():
    raise_problems(ExanError, [])
    with pytest.raises(GradientError, match=r"^only one$"):
        raise_problems(GradientError, ["only one"])
    with pytest.raises(GradientError, match=r"^2 problems:\n  - a\n  - b$"):
        raise_problems(GradientError, ["a", "b"])
