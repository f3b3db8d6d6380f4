"""Accounts of a simulated gateway: what they hold, what orders bind and cost."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from .venue_contracts import VenueContract
from .venue_directory import Found
from .venue_frames import Fields, frame
from .venue_link import Link
from .venue_order_frames import MARGINS, Report, contract_fields, plain, position_fields

_EQUITY = Decimal("100000.00")
_MARGIN = Decimal("0.25")
_PER_UNIT, _LEAST = Decimal("0.005"), Decimal("1.00")


class Holding:
    """What an account has of a contract; `cost` is that of a contract, with fees."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.size = Decimal(0)
        self.cost = Decimal(0)

    def add(self, size: Decimal, cost: Decimal) -> None:
        """A fill, negative when sold, at a cost for each contract."""
        after = self.size + size
        if self.size * size >= 0:
            whole = self.size * self.cost + size * cost
            self.cost = whole / after if after else Decimal(0)
        elif after * self.size <= 0:
            self.cost = cost if after else Decimal(0)
        self.size = after


class Accounts:
    """All accounts of a login, by their codes."""

    equity = _EQUITY

    def __init__(self, codes: Sequence[str]) -> None:
        self.codes = tuple(codes)
        self.holdings: dict[tuple[str, int], Holding] = {}
        self._watching: defaultdict[Link, int] = defaultdict(int)

    def size(self, account: str, con_id: int) -> Decimal:
        """What an account has of a contract: the truth."""
        holding = self.holdings.get((account, con_id))
        return holding.size if holding else Decimal(0)

    # Money

    def commission(self, contract: VenueContract, size: Decimal) -> Decimal:
        """What an execution costs."""
        return max(_LEAST, _PER_UNIT * size) if contract.sec_type == "STK" else _LEAST

    def margin(self, found: Found, price: Decimal, size: Decimal) -> Decimal:
        """What an order binds."""
        multiplier = Decimal(found.contract.multiplier or 1)
        return price * size * multiplier * _MARGIN

    def reckon(self, found: Found, price: Decimal, size: Decimal) -> dict[str, object]:
        """The figures of an order that is not placed."""
        margin = self.margin(found, price, size)
        paid = self.commission(found.contract, size)
        figures = (
            *(Decimal(0), Decimal(0), _EQUITY, margin, margin * 4 / 5, -paid),
            *(margin, margin * 4 / 5, _EQUITY - paid),
        )
        texts: dict[str, object] = {
            name: plain(value) for name, value in zip(MARGINS, figures, strict=True)
        }
        money = {"commission": plain(paid), "money": found.contract.currency}
        return texts | money

    # What was filled

    def fill(self, report: Report) -> None:
        """An execution changes what is held."""
        ticket = report.ticket
        key = ticket.account, ticket.contract.con_id
        holding = self.holdings.setdefault(key, Holding(ticket.found))
        sign = 1 if ticket.order.side == "buy" else -1
        multiplier = Decimal(ticket.contract.multiplier or 1)
        fee = report.commission / report.size
        holding.add(sign * report.size, report.price * multiplier + sign * fee)
        for link in self._watching:
            link.send(self._position(ticket.account, holding))

    # Requests

    def positions(self, link: Link, _: Fields) -> None:
        """reqPositions: what there is, and what changes until it is canceled."""
        for (account, _con_id), holding in self.holdings.items():
            if holding.size:
                link.send(self._position(account, holding))
        link.send(frame(62, 1))
        self._watching[link] += 1

    def cancel_positions(self, link: Link, _: Fields) -> None:
        """cancelPositions."""
        self._watching.pop(link, None)

    def updates(self, link: Link, fields: Fields) -> None:
        """reqAccountUpdates: values and the portfolio, once."""
        fields.integer()  # version
        if not fields.flag():
            return
        account = fields.text() or self.codes[0]
        for key in ("NetLiquidation", "CashBalance"):
            link.send(frame(6, 2, key, _EQUITY, "USD", account))
        for (owner, _con_id), holding in self.holdings.items():
            if owner == account:
                link.send(self._portfolio(account, holding))
        link.send(frame(8, 1, f"{datetime.now(UTC):%H:%M}"))
        link.send(frame(54, 1, account))

    def forget(self, link: Link) -> None:
        """A client has gone."""
        self._watching.pop(link, None)

    def _position(self, account: str, holding: Holding) -> bytes:
        fields = position_fields(holding.found, holding.size, holding.cost)
        return frame(61, 3, account, *fields)

    def _portfolio(self, account: str, holding: Holding) -> bytes:
        found = holding.found
        row = found.contract
        names = list(contract_fields(found, row.exchange))
        price = found.market.price(found.market.last_units())
        worth = price * holding.size * Decimal(row.multiplier or 1)
        gain = worth - holding.size * holding.cost
        return frame(
            7, 8, *names, plain(holding.size), price, plain(worth),
            round(holding.cost, 8), round(gain, 8), 0, account,
        )  # fmt: skip
