"""What providers are made of; docs/providers.md says in which order.

defaults       the limits of a venue, as keys of a provider's configuration
shared         one object a trio run: limiters, clocks, tables
limiter        how often a venue may be asked
clock          how far the venue's clock is from ours
rest           calls over HTTP: pacing, retries, what answers mean
subscriptions  topics wanted, asked for, acknowledged, refused
stream         WebSockets that come back, and are replaced before they end
continuity     which trades are missing
market_feed    one market: its state, its gaps, its first minute
repair         what was lost is fetched
watch          what does not happen
venue_feed     all of these for the markets of a venue
"""
