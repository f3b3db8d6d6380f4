"""Is a provider what the contract says, against its simulated venue or a recording?

runner       all checks of a provider, in lanes that run side by side
cases        which checks there are, and in which lane
contract     what can be seen without running it
calls        markets, search, refusals, throttling, broken answers
history      bars of the past
links        lost connections, gaps and their repair
frames       messages lost, repeated, disordered, broken
shutdown     what is left when it is over
broker_contract  names, keys, lines of a ledger, the end of a dialog
broker_orders    orders placed, filled, changed, canceled, refused
broker_reports   reports twice and disordered, and what the gateway makes of them
broker_faults    answers lost, connections cut, limits
broker_ems       all of it by open_ems, beside the venue's truth
truth        rows of a ring beside the venue's own candles
rings        the rings of a feed
stage        a venue, a provider pointed at it, and its rings
venues       which venue a provider has, and how it is pointed there
trader       who trades there by the provider's dialog
process      the provider in a process of its own
subject      that process; tap and resources look at it from inside
trading      orders in that process; secrets looks for keys where none may be
report       what is found
recording    sessions that were recorded; replays checks by them, replay serves one
script       by what is said on it
skeleton     a new provider to begin with
"""
