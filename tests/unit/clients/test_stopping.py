"""Waiting that ends when the process is asked to stop."""

import asyncio

from mlops_assets.clients.stopping import done_before, wait_for


def test_a_wait_tells_whether_it_was_ended() -> None:
    async def waits() -> tuple[bool, bool]:
        stopping = asyncio.Event()
        asyncio.get_running_loop().call_soon(stopping.set)
        return await wait_for(asyncio.Event(), 0), await wait_for(stopping, 60)

    assert asyncio.run(waits()) == (False, True)


def test_what_is_not_done_when_the_process_stops_is_cancelled() -> None:
    async def race() -> tuple[bool, bool, bool]:
        stopping, done, never = asyncio.Event(), asyncio.Future[None](), asyncio.Future[None]()
        done.set_result(None)
        in_time = await done_before(done, stopping)
        stopping.set()
        too_late = await done_before(never, stopping)
        return in_time, too_late, never.cancelled()

    assert asyncio.run(race()) == (True, False, True)
