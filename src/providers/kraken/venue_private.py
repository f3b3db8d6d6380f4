"""The private REST side of a simulated Kraken: `/0/private/...`.

Rules this file owns:

1. A call is checked as the venue does: key, nonce (strictly rising), signature of the
   body as it came; then how often the key has called.
2. Lists of ended orders and of fills come in pages of 50, newest first, of what lies
   after `start` and up to `end`.
"""

import base64
import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast
from urllib.parse import parse_qsl

import trio

from piker_core.simulation.http import Call
from piker_core.simulation.market import NS
from piker_core.simulation.matching import VenueOrder

from .venue_auth import Tokens
from .venue_auth_requests import trigger_times
from .venue_order_faults import TEXTS
from .venue_orders import INVALID, UNKNOWN_ORDER, Orders, Refused, Terms
from .venue_pairs import VenuePair
from .venue_reports import execution_id, order_id, rest_order, rest_trade

PAGE = 50
_COSTS = {"TradesHistory": 2, "Ledgers": 2, "QueryLedgers": 2}
_FREE = ("AddOrder", "AmendOrder", "CancelOrder", "CancelAll", "CancelAllOrdersAfter")

Form = dict[str, str]


class PrivateRest:
    """Answers private calls. `refused` counts those over the key's rate."""

    def __init__(self, orders: Orders, tokens: Tokens) -> None:
        self.refused = 0
        self.bad_nonces = 0
        self._orders, self._tokens = orders, tokens
        self._last_nonce = 0
        self._failures: Counter[str] = Counter()
        self._calls: tuple[float, float] = (0.0, float("-inf"))
        self._methods: dict[str, Callable[[Form], object]] = {
            "GetWebSocketsToken": self._token,
            "Balance": self._balance,
            "BalanceEx": self._balance_ex,
            "OpenOrders": self._open_orders,
            "ClosedOrders": self._closed_orders,
            "QueryOrders": self._query_orders,
            "TradesHistory": self._trades_history,
            "AddOrder": self._add_order,
            "AmendOrder": self._amend_order,
            "CancelOrder": self._cancel_order,
            "CancelAll": self._cancel_all,
            "CancelAllOrdersAfter": self._cancel_after,
        }

    def answer(self, method: str, call: Call) -> object:
        """The result of a call. Raises Refused."""
        form = _form(call)
        self._authenticate(call, form)
        self._count(method)
        serve = self._methods.get(method)
        if serve is None:
            raise Refused("EGeneral:Unknown method")
        lie = self._orders.faults.take_lie() if method in _FREE else None
        if lie is not None and not lie[1]:
            raise Refused(TEXTS.get(lie[0], TEXTS["unavailable"]))
        self._orders.begin()
        try:
            result = serve(form)
        finally:
            self._orders.reports(self._orders.end())
        if lie is not None:
            raise Refused(TEXTS.get(lie[0], TEXTS["unavailable"]))
        return result

    # Who calls, and how often

    def _authenticate(self, call: Call, form: Form) -> None:
        account = self._orders.account
        key = call.headers.get("api-key", "")
        if self._failures[key] >= account.lockout:
            raise Refused("EGeneral:Temporary lockout")
        if key != account.api_key:
            self._failures[key] += 1
            raise Refused("EAPI:Invalid key")
        nonce = form.get("nonce", "")
        hashed = hashlib.new("sha256", nonce.encode("ascii", "replace") + call.body)
        signed = hmac.digest(
            base64.standard_b64decode(account.api_secret),
            call.path.encode("ascii") + hashed.digest(),
            "sha512",
        )
        given = call.headers.get("api-sign", "")
        if not hmac.compare_digest(
            base64.standard_b64encode(signed), given.encode("latin-1")
        ):
            self._failures[key] += 1
            raise Refused("EAPI:Invalid signature")
        if not nonce.isdecimal() or not self._last_nonce < int(nonce) < 2**64:
            self.bad_nonces += 1
            raise Refused("EAPI:Invalid nonce")
        self._last_nonce = int(nonce)

    def _count(self, method: str) -> None:
        if method in _FREE:
            return
        account, now = self._orders.account, trio.current_time()
        count, at = self._calls
        count = max(count - (now - at) * account.calls_decay, 0.0)
        count += _COSTS.get(method, 1)
        if count > account.calls:
            self.refused += 1
            raise Refused("EAPI:Rate limit exceeded")
        self._calls = (count, now)

    # Reading

    def _token(self, form: Form) -> object:
        seconds = int(self._orders.account.token_s)
        return {"token": self._tokens.make(), "expires": seconds}

    def _assets(self) -> dict[str, str]:
        """Codes of assets by their names over WebSocket."""
        pairs = self._orders.pairs()
        assets = [asset for pair in pairs for asset in (pair.base, pair.quote)]
        return {asset.name: asset.code for asset in assets}

    def _balance(self, form: Form) -> object:
        codes = self._assets()
        return {
            codes.get(asset, asset): f"{balance:.10f}"
            for asset, balance in self._orders.matching.balances.items()
        }

    def _balance_ex(self, form: Form) -> object:
        codes, matching = self._assets(), self._orders.matching
        return {
            codes.get(asset, asset): {
                "balance": f"{balance:.10f}",
                "hold_trade": f"{matching.held(asset):.10f}",
            }
            for asset, balance in matching.balances.items()
        }

    def _row(self, order: VenueOrder) -> dict[str, Any]:
        return rest_order(order, self._pair(order))

    def _pair(self, order: VenueOrder) -> VenuePair:
        return self._orders.market(order.symbol).pair

    def _open_orders(self, form: Form) -> object:
        wanted = form.get("cl_ord_id", "")
        return {
            "open": {
                order_id(order): self._row(order)
                for order in self._orders.matching.open_orders()
                if wanted in ("", order.client_id)
            }
        }

    def _closed_orders(self, form: Form) -> object:
        wanted = form.get("cl_ord_id", "")
        ended = [
            order
            for order in self._orders.matching.orders.values()
            if order.state != "open" and wanted in ("", order.client_id)
        ]
        ended.sort(key=lambda order: -order.ended_ns)
        page = _page(form, [(order.ended_ns, order) for order in ended])
        rows = {order_id(order): self._row(order) for order in page}
        return {"closed": rows, "count": len(ended)}

    def _query_orders(self, form: Form) -> object:
        names = form.get("txid", "").split(",")
        if len(names) > PAGE:
            raise Refused(f"{INVALID}:txid")
        orders = {order_id(o): o for o in self._orders.matching.orders.values()}
        found = {name: self._row(orders[name]) for name in names if name in orders}
        if not found:
            raise Refused("EOrder:Invalid order")
        return found

    def _trades_history(self, form: Form) -> object:
        fills = list(reversed(self._orders.fills()))
        page = _page(form, [(each.time_ns, (order, each)) for order, each in fills])
        rows = {
            execution_id(each): rest_trade(order, each, self._pair(order))
            for order, each in page
        }
        return {"trades": rows, "count": len(fills)}

    # Orders

    def _add_order(self, form: Form) -> object:
        market = self._orders.market(form.get("pair", ""))
        flags = form.get("oflags", "").split(",")
        kind, side = form.get("ordertype", ""), form.get("type", "")
        tif = form.get("timeinforce", "GTC").lower()
        if kind not in ("limit", "market") or side not in ("buy", "sell"):
            raise Refused(f"{INVALID}:ordertype")
        if tif not in ("gtc", "ioc", "fok"):
            raise Refused(f"{INVALID}:timeinforce")
        size = _decimal(form, "volume")
        if size is None:
            raise Refused(f"{INVALID}:volume")
        terms = Terms(
            symbol=market.pair.symbol,
            side=cast(Literal["buy", "sell"], side),
            size=size,
            price=_decimal(form, "price") if kind == "limit" else None,
            tif=cast(Literal["gtc", "ioc", "fok"], tif),
            post_only="post" in flags,
            client_id=form.get("cl_ord_id", ""),
            deadline=form.get("deadline", ""),
            validate=form.get("validate") == "true",
        )
        order = self._orders.add(terms)
        described = {"order": f"{side} {terms.size} {market.pair.altname} @ {kind}"}
        if order is None:
            return {"descr": described}
        return {"descr": self._row(order)["descr"], "txid": [order_id(order)]}

    def _amend_order(self, form: Form) -> object:
        order = self._orders.find(form.get("txid") or form.get("cl_ord_id", ""))
        self._orders.amend(
            order,
            size=_decimal(form, "order_qty"),
            price=_decimal(form, "limit_price"),
            post_only=form.get("post_only") == "true",
            deadline=form.get("deadline", ""),
        )
        return {"amend_id": f"TTW6PD-RC36L-{order.amendments:06d}"}

    def _cancel_order(self, form: Form) -> object:
        order = self._orders.find(form.get("txid") or form.get("cl_ord_id", ""))
        if order.state != "open":
            raise Refused(UNKNOWN_ORDER)
        self._orders.cancel(order)
        return {"count": 1}

    def _cancel_all(self, form: Form) -> object:
        return {"count": self._orders.cancel_all()}

    def _cancel_after(self, form: Form) -> object:
        timeout = form.get("timeout", "")
        if not timeout.isdecimal():
            raise Refused(f"{INVALID}:timeout")
        self._orders.cancel_after(int(timeout))
        return trigger_times(int(timeout))


def _form(call: Call) -> Form:
    """The parameters of a call, whichever way they are written. Raises Refused."""
    if "json" not in call.headers.get("content-type", ""):
        body = call.body.decode("ascii", "replace")
        return dict(parse_qsl(body, keep_blank_values=True))
    try:
        decoded = json.loads(call.body)
    except ValueError:
        raise Refused(INVALID) from None
    if not isinstance(decoded, dict):
        raise Refused(INVALID)
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in decoded.items()
    }


def _decimal(form: Form, field: str) -> Decimal | None:
    if field not in form:
        return None
    try:
        number = Decimal(form[field])
    except InvalidOperation:
        raise Refused(f"{INVALID}:{field}") from None
    if not number.is_finite():
        raise Refused(f"{INVALID}:{field}")
    return number


def _page(form: Form, rows: list[tuple[int, Any]]) -> list[Any]:
    """The page of rows, newest first, that `start`, `end` and `ofs` name."""
    start, end = _decimal(form, "start"), _decimal(form, "end")
    skip = form.get("ofs", "0")
    if not skip.isdecimal():
        raise Refused(f"{INVALID}:ofs")
    wanted = [
        row
        for time_ns, row in rows
        if (start is None or time_ns > start * NS)
        and (end is None or time_ns <= end * NS)
    ]
    return wanted[int(skip) : int(skip) + PAGE]
