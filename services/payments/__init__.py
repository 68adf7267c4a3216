"""Payments: holds the buyer's money until the goods arrived, and gives it back when they do not."""
