"""What counts as left to the garbage collector, and what does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from types import MethodType

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


class Once:
    """It is awaited once, and waits."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def generator() -> None:
    def steps() -> Generator[None, object, None]:
        own = yield
        yield
        assert own

    one = steps()
    next(one)
    one.send(one)


def coroutine() -> None:
    async def answer() -> None:
        await Once()
        assert held

    held: list[Coroutine[object, object, None]] = [answer()]
    held[0].send(None)


def async_generator() -> None:
    async def answers() -> AsyncGenerator[None, None]:
        yield
        assert held

    held: list[object] = [answers()]


@pytest.mark.parametrize("made", [generator, coroutine, async_generator])
def test_what_waits_in_its_code_and_holds_itself_is_found(made: Callable[[], None]) -> None:
    """The collector closes it, and finds no circle afterwards."""
    found = pytest.raises(AssertionError, match=rf"test_garbage\.{made.__name__}\b")
    with found, no_garbage("tests.unit.testing"):
        made()


def test_what_waits_in_its_code_and_ends_by_its_count_is_left_out() -> None:
    def steps() -> Generator[None, None, None]:
        yield

    with no_garbage("tests.unit.testing"):
        kept = steps()
        next(kept)
        next(steps())


def test_methods_that_hold_themselves_are_found() -> None:
    def made() -> None:
        held: list[object] = []

        def own(_: object) -> None:
            pass

        held.append(MethodType(own, held))

    with pytest.raises(AssertionError, match=r"test_garbage\.method"), no_garbage("tests.unit.testing"):
        made()
