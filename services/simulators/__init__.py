"""The outside world: storefront, payment provider, warehouse, carrier and customs. Public contracts only."""
