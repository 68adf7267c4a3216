"""What operators look at: views over our topics. Nothing here is on the way of an order or of money.

Order of reading: `funnel.py` (what is counted, pure), `topics.py`, `views.py` (the Faust worker), `rebuild.py`.
"""
