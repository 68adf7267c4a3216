"""Faults under load: a running Tradewind, a proxy on each connection of its services, and what is done to them."""
