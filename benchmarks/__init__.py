"""What an operation costs, beside a reference that is measured in the same run.

    python -m benchmarks.bench_ring     reading, opening, importing, two processes
    python -m benchmarks.bench_fold     ticks into rings and bars
    python -m benchmarks.bench_feed     frames of a WebSocket into bars
    python -m benchmarks.bench_binance  many markets of a venue at once

Each runs alone, prints a table, and takes `--quick` (a few seconds) and `--json` (one
object a line). Rounds of what is compared alternate; a figure is the lowest and the
median of its rounds, and a ratio is that of the medians.
"""
