"""Crews: as many items at once as wanted, which may change, until nothing or no time is left."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from localism.serving.crew import Crew


class Room:
    """Work that waits for a signal, and counts who is in it."""

    def __init__(self) -> None:
        self.inside: list[int] = []
        self.finished: list[int] = []
        self._open = asyncio.Event()

    async def work(self, item: int) -> None:
        self.inside.append(item)
        try:
            await self._open.wait()
            self.finished.append(item)
        finally:
            self.inside.remove(item)

    async def let_out(self) -> None:
        """Whoever is inside now is finished."""
        self._open.set()
        self._open.clear()
        await asyncio.sleep(0.01)


def played(items: range, size: int, script: Callable[[Crew[int], Any], Awaitable[None]]) -> Any:
    """A crew that works while the script changes it; returns the crew and its room."""

    async def play() -> tuple[Crew[int], Room]:
        room = Room()
        crew = Crew(items, room.work, size)
        finishing = asyncio.create_task(crew.finish())
        await asyncio.sleep(0.01)
        await script(crew, room)
        while not finishing.done():
            await room.let_out()
        await finishing
        return crew, room

    return asyncio.run(play())


def test_a_larger_crew_begins_at_once_and_a_smaller_one_finishes_what_it_has():
    async def script(crew: Crew[int], room: Room) -> None:
        assert len(room.inside) == crew.active == 2
        crew.resize(5)
        await asyncio.sleep(0.01)
        assert len(room.inside) == crew.active == 5
        crew.resize(1)
        await asyncio.sleep(0.01)
        assert len(room.inside) == 5  # nobody is sent away from unfinished work
        await room.let_out()
        assert len(room.inside) == crew.active == 1

    crew, room = played(range(30), 2, script)
    assert sorted(room.finished) == list(range(30)) and not crew.is_cut_short


def test_a_closed_crew_finishes_what_it_has_and_begins_no_more():
    async def script(crew: Crew[int], room: Room) -> None:
        crew.close()
        crew.resize(9)

    crew, room = played(range(30), 3, script)
    assert sorted(room.finished) == [0, 1, 2] and crew.is_cut_short


def test_closing_when_all_has_begun_cuts_nothing_short():
    async def script(crew: Crew[int], room: Room) -> None:
        crew.close()

    crew, room = played(range(3), 3, script)
    assert sorted(room.finished) == [0, 1, 2] and not crew.is_cut_short


def test_giving_up_ends_what_is_unfinished():
    async def script(crew: Crew[int], room: Room) -> None:
        crew.close()
        crew.give_up()

    crew, room = played(range(3), 3, script)
    assert room.finished == [] and room.inside == [] and crew.is_cut_short


def test_a_crew_that_was_closed_before_it_began_ends_at_once():
    async def never(_: int) -> None:
        raise AssertionError("begun")

    async def run() -> Crew[int]:
        crew = Crew(range(3), never, 2)
        crew.close()
        await crew.finish()
        return crew

    assert asyncio.run(run()).is_cut_short


def test_an_exception_of_somebody_who_came_later_ends_the_crew_too():
    async def work(item: int) -> None:
        if item == 5:
            raise ValueError("five")
        await asyncio.sleep(30)

    async def run() -> None:
        crew = Crew(range(30), work, 2)
        finishing = asyncio.create_task(crew.finish())
        await asyncio.sleep(0.01)
        crew.resize(10)
        await finishing

    started = time.monotonic()
    with pytest.raises(ValueError, match="five"):
        asyncio.run(run())
    assert time.monotonic() - started < 5


def test_no_items_are_done_at_once():
    async def never(_: int) -> None:
        raise AssertionError("begun")

    asyncio.run(Crew([], never, 4).finish())


def test_several_that_fail_at_once_are_one_error_and_nothing_is_printed(caplog):
    """As when an engine cannot start, and every conversation waits for it."""

    async def scene() -> None:
        gate = asyncio.Event()

        async def fail(item: int) -> None:
            await gate.wait()
            raise ValueError(f"item {item}")

        asyncio.get_running_loop().call_later(0.05, gate.set)
        with pytest.raises(ValueError, match="item 0"):
            await Crew(range(9), fail, 3).finish()

    asyncio.run(scene())
    gc.collect()
    assert "never retrieved" not in caplog.text
