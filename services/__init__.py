"""The services of Tradewind, what they share, and the command that runs them."""
