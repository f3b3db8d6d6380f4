"""What is made of Binance's word on whether its symbols trade."""

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from providers.binance.feed import SideFeed
from tests.adapter_host import Listing, gaps, open_host, quote, tick
from tests.test_adapter_market_feed import NOW_NS, add, begin


@pytest.mark.parametrize("heard", [False, True])
async def test_a_market_that_traded_after_it_was_asked_about_is_not_closed(
    namespace: str, heard: bool
) -> None:
    with open_host(namespace) as host:
        market = add(host, Listing())
        await begin(host, market, tick(1, NOW_NS))
        asked: Counter[str] = Counter()

        class Side:
            """Its answers are long on their way."""

            async def statuses(self, symbols: Any) -> dict[str, str]:
                asked.update(symbols)
                if heard:
                    await market.take(quote(tick(2, time.time_ns())))
                return {"ABCUSD": "BREAK"}

        feed = SimpleNamespace(markets={"ABCUSD": market}, log=host.log)
        side = SideFeed(cast("Any", Side()), cast("Any", feed))
        side.symbols["ABCUSD"] = cast("Any", "ABCUSD")
        await side._look_up(["ABCUSD"])
        assert asked == {"ABCUSD": 1} and gaps(host) == []
        assert market.trading == heard
        assert market.handle.status == ("live" if heard else "closed")
