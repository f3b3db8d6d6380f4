"""The order gateway: `open_ems`, and what stands behind it.

opening      open_ems: who runs the gateway of an account, who is its client
client       a strategy's end; link what it says and hears, server its socket
desk         the gateway at work, in turns; seats its clients; database what it keeps
gateway      all orders of an account, without clock, disk or wire; turn what follows
             from what comes in, lifecycle one order
markets      prices and triggers of the markets, by watch, from the rings: watched is
             one market, lost what rows tell of ticks that are lost
live         a venue as the broker, reconcile what is found out at it
paper_broker the paper engine (paper) as the broker
risk         limits of orders; kill_switch stops all
ledger       what was filled, held and earned (holding); ledger_rows on disk
"""

from piker_core.ems.client import OrderClient
from piker_core.ems.opening import open_ems

__all__ = ["OrderClient", "open_ems"]
