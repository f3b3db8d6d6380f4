"""The paper engine: a venue that fills orders by what a real one shows and trades.

engine    PaperEngine: requests and ticks in, messages out; its configuration
venue     what requests make of orders; book one market's matching rules
ticks     those of a batch that matter
messages  what it says; state what it is made of again after a restart
"""

from piker_core.ems.paper.engine import PaperConfig, PaperEngine

__all__ = ["PaperConfig", "PaperEngine"]
