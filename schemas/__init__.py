"""What crosses a boundary: events, commands, money, the envelope and the lifecycle tables.

Order of reading: `topics.py` (who writes what where), `lifecycle.py` (the five machines), then one file a topic.
This package imports nothing of `services`.
"""
