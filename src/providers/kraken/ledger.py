"""Kraken's own records of an account as transactions of a ledger.

Source: https://docs.kraken.com/api/docs/rest-api/get-trade-history and get-ledgers
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from piker_core.errors import ProviderError
from piker_core.orders import Transaction, exact

from .markets import PROVIDER, RENAMED, plain
from .wire import NS

_LEGACY = 8
_TRANSFERS = ("deposit", "withdrawal", "transfer", "adjustment", "staking", "earn")
_FEES = ("rollover",)
_ZERO = Decimal(0)


def norm_trade(record: Mapping[str, Any]) -> Transaction | None:
    """A record of TradesHistory or Ledgers as a transaction; None: it is told else.

    `record`: the venue's fields and its key as `txid` (trades) or `ledger_id`
    (ledgers). Where it has a `symbol`, that is the market's full name; else it is made
    of the venue's `pair`. A deposit, withdrawal or transfer is one of its asset
    (`btc.kraken`), without a price; legs of trades are None, the trades tell them.
    Raises ProviderError for a record that cannot be understood.
    """
    try:
        if "ordertxid" in record:
            return _trade(record)
        return _ledger(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        text = f"a record of Kraken's cannot be understood: {error!r}"
        raise ProviderError(text, frame=repr(record)[:500]) from None


def _trade(record: Mapping[str, Any]) -> Transaction:
    sign = {"buy": 1, "sell": -1}[record["type"]]
    pair = str(record["pair"])
    return Transaction(
        kind="fill",
        tid=str(record["txid"]),
        time_ns=int(exact(record["time"], "time") * NS),
        symbol=record.get("symbol") or f"{_pair_name(pair)}.{PROVIDER}",
        size=sign * exact(record["vol"], "vol"),
        price=exact(record["price"], "price"),
        fee=exact(record.get("fee") or 0, "fee"),
        fee_currency=record.get("fee_currency") or _quote_name(pair),
        reqid=str(record.get("cl_ord_id") or ""),
        details={"ordertxid": record["ordertxid"], "pair": pair},
    )


def _ledger(record: Mapping[str, Any]) -> Transaction | None:
    kind = str(record["type"])
    if kind not in _TRANSFERS and kind not in _FEES:
        return None
    asset = _asset_name(str(record["asset"]))
    amount, fee = exact(record["amount"], "amount"), exact(record["fee"], "fee")
    return Transaction(
        kind="fee" if kind in _FEES else "transfer",
        tid=str(record["ledger_id"]),
        time_ns=int(exact(record["time"], "time") * NS),
        symbol=f"{asset}.{PROVIDER}",
        size=_ZERO if kind in _FEES else amount,
        fee=fee,
        fee_currency=asset,
        details={"type": kind, "refid": record.get("refid", "")},
    )


def _pair_name(pair: str) -> str:
    """Our name of a pair: XXBTZUSD, XBTUSD and XBT/USD are all xbtusd."""
    if len(pair) == _LEGACY and pair[0] in "XZ" and pair[4] in "XZ":
        pair = pair[1:4] + pair[5:]
    return plain(pair)


def _quote_name(pair: str) -> str:
    """The quote's name in lower case, as far as the pair's tells it; else ""."""
    if "/" in pair:
        return _asset_name(pair.partition("/")[2])
    if len(pair) == _LEGACY and pair[0] in "XZ" and pair[4] in "XZ":
        return _asset_name(pair[4:])
    known = ("USDT", "USDC", "USD", "EUR", "GBP", "CAD", "JPY", "AUD", "CHF", "XBT")
    return next((_asset_name(name) for name in known if pair.endswith(name)), "")


def _asset_name(code: str) -> str:
    """Today's name of an asset, in lower case: XXBT and XBT are btc, ZUSD is usd."""
    if len(code) == _LEGACY // 2 and code[0] in "XZ":
        code = code[1:]
    return RENAMED.get(code, code).lower()
