"""The lanes in which an analyst's messages go to an owner."""

import asyncio


def fill(tape):
    """Take all places of messages under way, once those are free: what is asked next waits for one, for ever."""

    async def taken():
        while tape._tasks:  # each gives its place back in a callback, to the window that is there then
            await asyncio.wait(set(tape._tasks))
            await asyncio.sleep(0)
        tape._window = asyncio.Semaphore(0)

    asyncio.run_coroutine_threadsafe(taken(), tape.session.loop).result(20)
