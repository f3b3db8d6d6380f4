"""What simulated venues are made of: a market, its exchange, and servers that can fail.

Simulated venues stand beside their providers and add the wire protocol.
"""
