"""Work on many items at once: as many as wanted at the moment, until none or no time is left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

_NOTHING = object()


class Crew(Generic[Item]):
    """Coroutines that take one item after another; how many of them, may change while they work.

    Items are taken as they are needed, so that memory stays constant.
    """

    def __init__(
        self, items: Iterable[Item], work: Callable[[Item], Awaitable[object]], size: int
    ) -> None:
        self.size = size
        """How many items are wanted at once; see resize."""
        self.active = 0
        """How many are worked on; more than `size` for a while after it was lowered."""
        self.is_cut_short = False
        """Some items were not begun, or not finished, because of close or give_up."""
        self._items: Iterator[Item] = iter(items)
        self._work = work
        self._is_empty = False
        self._tasks: dict[asyncio.Task[None], None] = {}  # in the order in which they began
        self._ended: asyncio.Future[None]

    async def finish(self) -> None:
        """Work until all is done. The first exception of the work ends the rest and is raised."""
        self._ended = asyncio.get_running_loop().create_future()
        self.resize(self.size)
        try:
            if self._tasks:
                await self._ended
        finally:
            self._is_empty = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def resize(self, size: int) -> None:
        """Work on so many items at once from now on; those too many are finished first."""
        self.size = size
        while self.active < size and not self._is_empty:
            self.active += 1
            task = asyncio.create_task(self._take())
            self._tasks[task] = None
            task.add_done_callback(self._on_done)

    def close(self) -> None:
        """Begin no further item."""
        if not self._is_empty:
            self.is_cut_short = next(self._items, _NOTHING) is not _NOTHING
            self._is_empty = True

    def give_up(self) -> None:
        """End what is being worked on, unfinished."""
        if not self._ended.done():
            self.is_cut_short = True
            self._ended.set_result(None)

    async def _take(self) -> None:
        try:
            while self.active <= self.size and not self._is_empty:
                item = next(self._items, _NOTHING)
                if item is _NOTHING:
                    self._is_empty = True
                    return
                await self._work(item)  # type: ignore[arg-type]
        finally:
            self.active -= 1

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.pop(task, None)
        # Asked of each, or asyncio prints those that fail beside the first.
        problem = None if task.cancelled() else task.exception()
        if self._ended.done():
            return
        if problem:
            self._ended.set_exception(problem)
        elif not self._tasks:
            self._ended.set_result(None)


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine while the block runs, and end it then; what it raised is raised after it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def for_each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[object]], in_flight: int
) -> None:
    """Run work(item) for every item, at most `in_flight` at once, in constant memory.

    The first exception of a worker cancels the others and is raised. Where a model is asked for
    each item, Client.for_each finds the number by itself and keeps to the time allowed.
    """
    await Crew(items, work, in_flight).finish()
