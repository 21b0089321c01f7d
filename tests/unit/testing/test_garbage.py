"""What counts as left to the garbage collector, and what does not."""

from __future__ import annotations

import pytest

from tests.garbage import no_garbage


class Endless:
    """It refers to itself."""

    def __init__(self) -> None:
        self.own = self


def test_what_refers_to_itself_is_found() -> None:
    with pytest.raises(AssertionError, match="Endless"), no_garbage("tests"):
        Endless()


def test_what_an_earlier_test_s_thread_held_until_now_is_left_out() -> None:
    held = [Endless()]
    with no_garbage("tests"):
        held.clear()


def test_lists_that_nobody_names_are_left_out() -> None:
    """Any thread of the process may give up such ones meanwhile."""
    with no_garbage("tests"):
        endless: list[object] = []
        endless.append(endless)
        del endless


def test_frames_that_keep_what_they_have_caught_are_found() -> None:
    def fails() -> None:
        try:
            raise ValueError
        except ValueError as error:
            kept = error
            assert kept.__traceback__

    with pytest.raises(AssertionError, match=r"test_garbage\.frame"), no_garbage("tests.unit.testing"):
        fails()


def test_functions_that_name_themselves_are_found() -> None:
    def made() -> None:
        def again() -> None:
            again()

    with pytest.raises(AssertionError, match=r"test_garbage\.function"), no_garbage("tests.unit.testing"):
        made()
