"""The independent auditor: reads what everybody else left behind and says where it contradicts the rules.

Order of reading: `evidence.py` (what is read), `story.py` (records to one story an order), `facts.py` (what a story adds
up to), `rules.py` with `rules_*.py` (one function a rule), `audit.py` (all of it, to a report). Of this project it imports
`schemas` and the settings alone: a bug that it shared with a service it could not see.
"""
