"""The order gateway: orders, limits, and what became of them."""
