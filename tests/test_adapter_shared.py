"""One object a run."""

import trio

from piker_core.adapter.shared import share


def test_an_object_is_made_once_a_run() -> None:
    async def ask() -> tuple[object, object, object]:
        return share("a", object), share("a", object), share("b", object)

    first, again, other = trio.run(ask)
    assert first is again and first is not other
    assert trio.run(ask)[0] is not first
