"""Clients by others that trade at a gateway, and print what they understood as JSON.

`python ib_order_peers.py ib_async|ibapi PORT PRICE`: a price that takes at once. Each
runs in a process of its own, as in `ib_venue_peers`.
"""

import asyncio
import json
import sys
import threading
import time
from collections import defaultdict
from typing import Any

PATIENCE_S = 30.0
FAR = 30.0
SIZE = 5


async def _wait(look: Any) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > deadline_s:
            raise TimeoutError("nothing more comes")
        await asyncio.sleep(0.01)


async def run_ib_async(port: int, price: float) -> dict[str, Any]:
    """Place, change, cancel, be filled, and ask for everything."""
    from ib_async import IB, LimitOrder, Stock

    ib, other = IB(), IB()
    errors: list[tuple[int, str]] = []
    ib.errorEvent += lambda *row: errors.append((row[1], row[2]))
    await ib.connectAsync(port=port, clientId=7, timeout=10, raiseSyncErrors=True)
    await other.connectAsync(port=port, clientId=8, timeout=10, raiseSyncErrors=True)
    stock = Stock("AAPL", "SMART", "USD")
    await ib.qualifyContractsAsync(stock)
    got: dict[str, Any] = {}
    margins = await ib.whatIfOrderAsync(stock, LimitOrder("BUY", SIZE, price))
    got["what_if"] = (float(margins.initMarginChange), margins.commission)

    taken = ib.placeOrder(stock, LimitOrder("BUY", SIZE, price, orderRef="take"))
    await _wait(lambda: taken.isDone() and taken.fills)
    await _wait(lambda: taken.fills[0].commissionReport.execId)
    fill = taken.fills[0]
    got["filled"] = (taken.orderStatus.status, taken.orderStatus.filled)
    got["fill"] = (fill.execution.execId, fill.execution.price, fill.execution.shares)
    got["paid"] = fill.commissionReport.commission
    got["mean"] = taken.orderStatus.avgFillPrice

    order = LimitOrder("BUY", SIZE, price - FAR, orderRef="rest", tif="GTC")
    resting = ib.placeOrder(stock, order)
    await _wait(lambda: resting.orderStatus.status == "Submitted")
    order.lmtPrice = price - FAR - 1
    order.totalQuantity = SIZE + 2
    ib.placeOrder(stock, order)
    await _wait(lambda: resting.orderStatus.remaining == SIZE + 2)
    seen = await other.reqAllOpenOrdersAsync()
    got["seen"] = [
        (row.order.orderRef, row.order.clientId, row.order.lmtPrice) for row in seen
    ]
    got["own"] = len(await other.reqOpenOrdersAsync())
    ib.cancelOrder(order)
    await _wait(lambda: resting.isDone())
    got["canceled"] = resting.orderStatus.status
    ib.cancelOrder(order)
    refused = ib.placeOrder(stock, LimitOrder("BUY", 10**7, price, orderRef="big"))
    await _wait(lambda: refused.isDone())
    got["refused"] = refused.orderStatus.status
    got["completed"] = [
        (row.order.orderRef, row.orderStatus.status, row.order.filledQuantity)
        for row in await ib.reqCompletedOrdersAsync(False)
    ]
    got["executions"] = [
        (row.execution.execId, row.execution.orderRef)
        for row in await ib.reqExecutionsAsync()
    ]
    got["positions"] = [
        (row.contract.symbol, row.position, row.avgCost)
        for row in await ib.reqPositionsAsync()
    ]
    got["codes"] = sorted({code for code, _ in errors if code < 2000 or code > 3000})
    ib.disconnect()
    other.disconnect()
    again = IB()
    await again.connectAsync(port=port, clientId=7, timeout=10, raiseSyncErrors=True)
    got["portfolio"] = [
        (row.contract.symbol, row.position) for row in again.portfolio()
    ]
    got["next_id"] = again.client.getReqId()
    again.disconnect()
    return got


def run_ibapi(port: int, price: float) -> dict[str, Any]:
    """Place, change, cancel, be filled, and ask for everything."""
    from ibapi.client import EClient
    from ibapi.wrapper import EWrapper

    class App(EWrapper, EClient):  # type: ignore[misc]
        """Collects what comes, by kind, and wakes who waits for it."""

        def __init__(self) -> None:
            EClient.__init__(self, self)
            self.rows: defaultdict[str, list[Any]] = defaultdict(list)
            self.changed = threading.Condition()

        def note(self, kind: str, *row: Any) -> None:
            with self.changed:
                self.rows[kind].append(row)
                self.changed.notify_all()

        def wait(self, kind: str, wanted: Any = lambda _: True, count: int = 1) -> Any:
            def found() -> list[Any]:
                return [row for row in self.rows[kind] if wanted(row)]

            with self.changed:
                if not self.changed.wait_for(lambda: len(found()) >= count, PATIENCE_S):
                    raise TimeoutError(f"{kind}: {dict(self.rows)}")
                return found()[-1]

        def error(self, reqId: int, errorCode: int, errorString: str) -> None:
            self.note("error", reqId, errorCode, errorString)

        def nextValidId(self, orderId: int) -> None:
            self.note("id", orderId)

        def openOrder(
            self, orderId: int, contract: Any, order: Any, state: Any
        ) -> None:
            self.note(
                "order", orderId, contract.symbol, order.lmtPrice, order.totalQuantity,
                order.orderRef, order.clientId, state.status, order.whatIf,
                state.initMarginChange, state.commission,
            )  # fmt: skip

        def openOrderEnd(self) -> None:
            self.note("open end")

        def orderStatus(self, orderId: int, status: str, *more: Any) -> None:
            self.note("status", orderId, status, *more[:3])

        def execDetails(self, reqId: int, contract: Any, execution: Any) -> None:
            self.note(
                "fill", reqId, execution.orderId, execution.execId, execution.price,
                execution.shares, execution.orderRef, execution.lastLiquidity,
            )  # fmt: skip

        def execDetailsEnd(self, reqId: int) -> None:
            self.note("fills end")

        def commissionReport(self, commissionReport: Any) -> None:
            report = commissionReport
            self.note("fee", report.execId, report.commission, report.currency)

        def completedOrder(self, contract: Any, order: Any, orderState: Any) -> None:
            row = (order.orderRef, orderState.status, order.filledQuantity)
            self.note("completed", *row, orderState.completedStatus, contract.symbol)

        def completedOrdersEnd(self) -> None:
            self.note("completed end")

        def position(
            self, account: str, contract: Any, size: float, cost: float
        ) -> None:
            self.note("position", account, contract.symbol, size, cost)

        def positionEnd(self) -> None:
            self.note("position end")

    app = App()
    app.connect("127.0.0.1", port, 9)
    thread = threading.Thread(target=app.run)
    thread.start()
    try:
        return _trade_ibapi(app, price)
    finally:
        app.disconnect()
        thread.join()


def _order(price: float, size: float, ref: str, *, what_if: bool = False) -> Any:
    from ibapi.order import Order

    order = Order()
    order.action, order.orderType, order.tif = "BUY", "LMT", "GTC"
    order.totalQuantity, order.lmtPrice = size, price
    order.orderRef, order.whatIf = ref, what_if
    order.eTradeOnly = order.firmQuoteOnly = False
    return order


def _trade_ibapi(app: Any, price: float) -> dict[str, Any]:
    from ibapi.contract import Contract

    stock = Contract()
    stock.symbol, stock.secType = "AAPL", "STK"
    stock.exchange, stock.currency = "SMART", "USD"
    (first,) = app.wait("id")
    got: dict[str, Any] = {"version": app.serverVersion()}
    app.placeOrder(first, stock, _order(price, SIZE, "", what_if=True))
    row = app.wait("order", lambda row: row[0] == first)
    got["what_if"] = (row[7], float(row[8]), row[9])
    app.placeOrder(first + 1, stock, _order(price, SIZE, "take"))
    app.wait("status", lambda row: row[:2] == (first + 1, "Filled"))
    got["fill"] = app.wait("fill")
    got["fee"] = app.wait("fee")
    app.placeOrder(first + 2, stock, _order(price - FAR, SIZE, "rest"))
    app.wait("status", lambda row: row[:2] == (first + 2, "Submitted"))
    app.placeOrder(first + 2, stock, _order(price - FAR - 1, SIZE + 2, "rest"))
    got["changed"] = app.wait("order", lambda row: row[3] == SIZE + 2)
    app.reqAllOpenOrders()
    app.wait("open end")
    app.cancelOrder(first + 2)
    app.wait("status", lambda row: row[:2] == (first + 2, "Cancelled"))
    app.wait("error", lambda row: row[:2] == (first + 2, 202))
    app.cancelOrder(first + 77)
    app.wait("error", lambda row: row[:2] == (first + 77, 10147))
    app.placeOrder(first, stock, _order(price - FAR, SIZE, "twice"))
    app.wait("error", lambda row: row[:2] == (first, 103))
    app.placeOrder(first + 3, stock, _order(price, 10**7, "big"))
    got["refused"] = app.wait("error", lambda row: row[:2] == (first + 3, 201))[2]
    app.reqCompletedOrders(False)
    app.wait("completed end")
    got["completed"] = app.rows["completed"]
    app.reqPositions()
    app.wait("position end")
    got["positions"] = app.rows["position"]
    app.reqIds(-1)
    got["next_id"] = app.wait("id", count=2)[0] - first
    return got


if __name__ == "__main__":
    peer, port, price = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if peer == "ib_async":
        print(json.dumps(asyncio.run(run_ib_async(port, price))))
    else:
        print(json.dumps(run_ibapi(port, price)))
