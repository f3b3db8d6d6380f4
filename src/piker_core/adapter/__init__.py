"""What providers are made of. How to write one is in docs/providers.md.

    defaults       the limits of a venue, as keys of a provider's configuration
    shared         one object a trio run: limiters, clocks, tables
    limiter        how often a venue may be asked
    clock          how far the venue's clock is from ours
    answers        calls before they are sent, and what answers mean
    rest           calls over HTTP: pacing, retries
    subscriptions  topics wanted, asked for, acknowledged, refused
    link           one connection, and the topics that it carries
    stream         connections that come back, and are replaced before they end
    trades         trades as lists and quotes have them
    frames         how frames are decoded once more
    events         what is written down of a feed
    tap            what goes on between a feed and its engine, written down
    tapped         an engine behind a tap
    played         an engine of what was written down
    player         all of them
    continuity     which trades are missing
    market_feed    one market: its state, its gaps, its first minute
    timed_feed     the same without trade ids
    repair         what was lost is fetched
    watch          what does not happen, and what is done then
    venue_feed     all of these for the markets of a venue

Each knows those above it only.
"""
