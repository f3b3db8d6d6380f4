"""Clients by others that speak to a gateway, and print what they understood as JSON.

`python ib_venue_peers.py ib_async|ibapi PORT`. Each runs in a process of its own: they
log, keep threads and leave sockets to the garbage collector, which is their affair.
"""

import asyncio
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

PATIENCE_S = 30.0
TICKS = 40
STOCK = ("AAPL", "STK", "SMART", "USD")
CLASSES = {
    "STK": STOCK,
    "FUT": ("ES", "FUT", "CME", "USD"),
    "OPT": ("AAPL", "OPT", "SMART", "USD"),
    "CASH": ("EUR", "CASH", "IDEALPRO", "USD"),
    "IND": ("SPX", "IND", "CBOE", "USD"),
    "CRYPTO": ("BTC", "CRYPTO", "PAXOS", "USD"),
}


def said(details: Any) -> list[Any]:
    """What contract details say, by either client."""
    contract = details.contract
    return [
        *(contract.conId, contract.symbol, contract.secType, contract.localSymbol),
        *(contract.lastTradeDateOrContractMonth, contract.strike, contract.right),
        *(contract.multiplier, contract.exchange, contract.currency),
        *(details.minTick, details.timeZoneId, details.tradingHours, details.longName),
        *(details.validExchanges, details.underConId, details.marketRuleIds),
        getattr(details, "mdSizeMultiplier", None),
    ]


def end_text() -> str:
    """A minute ago, as requests have it."""
    now_s = int(time.time()) // 60 * 60 - 60
    return f"{datetime.fromtimestamp(now_s, UTC):%Y%m%d-%H:%M:%S}"


async def run_ib_async(port: int) -> dict[str, Any]:
    """Connect, ask for one of everything, and disconnect."""
    from ib_async import IB, Contract

    ib = IB()
    errors: list[tuple[int, int, str]] = []
    ib.errorEvent += lambda *row: errors.append(row[:3])
    await ib.connectAsync(port=port, clientId=7, timeout=10, raiseSyncErrors=True)

    def contract(row: tuple[str, ...]) -> Any:
        symbol, kind, exchange, currency = row
        return Contract(
            symbol=symbol, secType=kind, exchange=exchange, currency=currency
        )

    got: dict[str, Any] = {"version": ib.client.serverVersion()}
    got["accounts"] = ib.managedAccounts()
    got["values"] = [(row.tag, row.value) for row in ib.accountValues()]
    got["details"] = {
        kind: [said(row) for row in await ib.reqContractDetailsAsync(contract(names))]
        for kind, names in CLASSES.items()
    }
    got["open"] = [
        [edge.timestamp() for edge in (row.start, row.end)]
        for row in (await ib.reqContractDetailsAsync(contract(STOCK)))[
            0
        ].tradingSessions()
    ]
    stock, euro = contract(STOCK), contract(CLASSES["CASH"])
    await ib.qualifyContractsAsync(stock, euro)
    got["qualified"] = stock.conId
    got["unknown"] = await ib.reqContractDetailsAsync(
        contract(("XXX", "STK", "SMART", "USD"))
    )
    got["samples"] = [
        (row.contract.symbol, row.contract.secType, row.derivativeSecTypes)
        for row in await ib.reqMatchingSymbolsAsync("apple")
    ]
    got["ticker"] = await _watch_ib_async(ib, stock, euro)
    got["bars"] = [
        (
            *(row.date.timestamp(), row.open, row.high, row.low, row.close),
            *(row.volume, row.average, row.barCount),
        )
        for row in await ib.reqHistoricalDataAsync(
            stock, end_text(), "600 S", "5 secs", "TRADES", False, formatDate=2
        )
    ]
    got["named"] = [
        row.date.timestamp()
        for row in await ib.reqHistoricalDataAsync(
            stock, end_text(), "600 S", "1 min", "TRADES", False, formatDate=1
        )
    ]
    got["middles"] = [
        (row.date.timestamp(), row.open, row.close, row.volume)
        for row in await ib.reqHistoricalDataAsync(
            euro, end_text(), "600 S", "1 min", "MIDPOINT", False, formatDate=2
        )
    ]
    got["ticks"] = [
        (row.time.timestamp(), row.price, row.size)
        for row in await ib.reqHistoricalTicksAsync(
            stock, "", end_text(), 100, "TRADES", False
        )
    ]
    head = await ib.reqHeadTimeStampAsync(stock, "TRADES", False, 2)
    got["head"] = head.timestamp()
    got["empty"] = len(
        await ib.reqHistoricalDataAsync(
            stock, "20000101-00:00:00", "60 S", "1 min", "TRADES", False
        )
    )
    got["errors"] = errors
    ib.disconnect()
    return got


async def _watch_ib_async(ib: Any, stock: Any, euro: Any) -> dict[str, Any]:
    """Live data: sampled, tick by tick, and bars of five seconds."""
    trades: list[tuple[float, float]] = []
    quotes: list[tuple[float, float]] = []
    volumes: list[float] = []

    def on_trades(ticker: Any) -> None:
        trades.extend((row.price, row.size) for row in ticker.tickByTicks)

    def on_quotes(ticker: Any) -> None:
        quotes.extend((row.bidPrice, row.askPrice) for row in ticker.tickByTicks)

    def on_sampled(ticker: Any) -> None:
        volumes.append(ticker.rtVolume)

    by_tick = ib.reqTickByTickData(stock, "AllLast")
    by_tick.updateEvent += on_trades
    of_quotes = ib.reqTickByTickData(euro, "BidAsk")
    of_quotes.updateEvent += on_quotes
    five = ib.reqRealTimeBars(stock, 5, "TRADES", False)
    deadline_s = time.monotonic() + PATIENCE_S
    while (len(trades) < TICKS or len(quotes) < 5 or not five) and (
        time.monotonic() < deadline_s
    ):
        await asyncio.sleep(0.05)
    ib.cancelTickByTickData(stock, "AllLast")
    sampled = ib.reqMktData(stock, "233")
    sampled.updateEvent += on_sampled
    while len(volumes) < 8 and time.monotonic() < deadline_s:
        await asyncio.sleep(0.05)
    ib.cancelMktData(stock)
    bar = five[0]
    return {
        "trades": trades,
        "quotes": quotes,
        "volumes": [row for row in volumes if row == row],
        "bid": sampled.bid,
        "ask": sampled.ask,
        "last": sampled.last,
        "volume": sampled.volume,
        "five": (
            *(bar.time.timestamp(), bar.open_, bar.high, bar.low, bar.close),
            *(bar.volume, bar.wap, bar.count),
        ),
    }


def run_ibapi(port: int) -> dict[str, Any]:
    """Connect, ask for one of everything, and disconnect."""
    from ibapi.client import EClient
    from ibapi.contract import Contract
    from ibapi.wrapper import EWrapper

    class App(EWrapper, EClient):  # type: ignore[misc]
        """Collects what comes, by request id, and wakes who waits for it."""

        def __init__(self) -> None:
            EClient.__init__(self, self)
            self.rows: defaultdict[Any, list[Any]] = defaultdict(list)
            self.changed = threading.Condition()

        def note(self, key: Any, row: Any) -> None:
            with self.changed:
                self.rows[key].append(row)
                self.changed.notify_all()

        def wait(self, key: Any, count: int = 1) -> list[Any]:
            with self.changed:
                there = self.changed.wait_for(
                    lambda: len(self.rows[key]) >= count, PATIENCE_S
                )
                if not there:
                    raise TimeoutError(f"{count} of {key}: {dict(self.rows)}")
                return list(self.rows[key])

        def error(self, reqId: int, errorCode: int, errorString: str) -> None:
            self.note("errors", (reqId, errorCode, errorString))
            self.note(("error", reqId), errorCode)

        def nextValidId(self, orderId: int) -> None:
            self.note("id", orderId)

        def managedAccounts(self, accountsList: str) -> None:
            self.note("accounts", accountsList)

        def contractDetails(self, reqId: int, contractDetails: Any) -> None:
            self.note(reqId, said(contractDetails))

        def contractDetailsEnd(self, reqId: int) -> None:
            self.note(("end", reqId), True)

        def symbolSamples(self, reqId: int, contractDescriptions: Any) -> None:
            rows = [
                (row.contract.symbol, row.contract.secType, row.derivativeSecTypes)
                for row in contractDescriptions
            ]
            self.note(reqId, rows)

        def tickPrice(self, reqId: int, tickType: int, price: float, _: Any) -> None:
            self.note((reqId, tickType), price)

        def tickSize(self, reqId: int, tickType: int, size: int) -> None:
            self.note((reqId, tickType), size)

        def tickString(self, reqId: int, tickType: int, value: str) -> None:
            self.note((reqId, tickType), value)

        def tickByTickAllLast(self, reqId: int, _: int, *row: Any) -> None:
            self.note(reqId, row[:3])

        def tickByTickBidAsk(self, reqId: int, *row: Any) -> None:
            self.note(reqId, row[:5])

        def historicalData(self, reqId: int, bar: Any) -> None:
            prices = (bar.open, bar.high, bar.low, bar.close)
            row = (int(bar.date), *prices, bar.volume, bar.average, bar.barCount)
            self.note(reqId, row)

        def historicalDataEnd(self, reqId: int, start: str, end: str) -> None:
            self.note(("end", reqId), (start, end))

        def historicalTicksLast(self, reqId: int, ticks: Any, done: bool) -> None:
            rows = [(row.time, row.price, row.size) for row in ticks]
            self.note(reqId, (rows, done))

        def headTimestamp(self, reqId: int, headTimestamp: str) -> None:
            self.note(reqId, int(headTimestamp))

        def realtimeBar(self, reqId: int, *row: Any) -> None:
            self.note(reqId, row)

        def connectionClosed(self) -> None:
            self.note("closed", True)

    def contract(row: tuple[str, ...]) -> Any:
        made = Contract()
        made.symbol, made.secType, made.exchange, made.currency = row
        return made

    app = App()
    app.connect("127.0.0.1", port, 8)
    thread = threading.Thread(target=app.run)
    thread.start()
    try:
        return _ask_ibapi(app, contract)
    finally:
        app.disconnect()
        thread.join()


def _ask_ibapi(app: Any, contract: Callable[[tuple[str, ...]], Any]) -> dict[str, Any]:
    app.wait("id")
    got: dict[str, Any] = {"version": app.serverVersion()}
    got["accounts"] = app.wait("accounts")
    got["details"] = {}
    for number, (kind, names) in enumerate(CLASSES.items(), start=100):
        app.reqContractDetails(number, contract(names))
        app.wait(("end", number))
        got["details"][kind] = app.rows[number]
    app.reqContractDetails(110, contract(("XXX", "STK", "SMART", "USD")))
    app.wait(("error", 110))
    app.reqMatchingSymbols(111, "apple")
    (got["samples"],) = app.wait(111)
    stock, euro = contract(STOCK), contract(CLASSES["CASH"])
    app.reqTickByTickData(1, stock, "AllLast", 0, False)
    app.reqTickByTickData(2, euro, "BidAsk", 0, False)
    app.reqRealTimeBars(3, stock, 5, "TRADES", False, [])
    app.reqMktData(4, stock, "233", False, False, [])
    got["trades"] = app.wait(1, TICKS)
    got["quotes"] = app.wait(2, 5)
    got["five"] = app.wait(3)[0]
    got["rt_volumes"] = app.wait((4, 48), 8)
    got["volumes"] = app.wait((4, 8), 8)
    got["bid"], got["ask"] = app.wait((4, 1))[-1], app.wait((4, 2))[-1]
    app.cancelTickByTickData(1)
    app.cancelTickByTickData(2)
    app.cancelRealTimeBars(3)
    app.cancelMktData(4)
    _ask_history_ibapi(app, got, stock, euro)
    got["errors"] = list(app.rows["errors"])
    app.disconnect()
    app.wait("closed")
    return got


def _ask_history_ibapi(app: Any, got: dict[str, Any], stock: Any, euro: Any) -> None:
    """History: bars, ticks, the first time, and errors."""
    shown = (False, 2, False, [])
    app.reqHistoricalData(5, stock, end_text(), "600 S", "5 secs", "TRADES", *shown)
    app.wait(("end", 5))
    got["bars"] = app.rows[5]
    app.reqHistoricalData(6, euro, end_text(), "600 S", "1 min", "MIDPOINT", *shown)
    app.wait(("end", 6))
    got["middles"] = app.rows[6]
    app.reqHistoricalTicks(7, stock, "", end_text(), 100, "TRADES", False, False, [])
    ((got["ticks"], done),) = app.wait(7)
    got["done"] = done
    app.reqHeadTimeStamp(8, stock, "TRADES", False, 2)
    (got["head"],) = app.wait(8)
    app.reqHistoricalData(
        9, stock, "20000101-00:00:00", "60 S", "1 min", "TRADES", *shown
    )
    app.wait(("error", 9))


if __name__ == "__main__":
    runs: dict[str, Callable[[int], Any]] = {
        "ib_async": lambda port: asyncio.run(run_ib_async(port)),
        "ibapi": run_ibapi,
    }
    print(json.dumps(runs[sys.argv[1]](int(sys.argv[2]))))
