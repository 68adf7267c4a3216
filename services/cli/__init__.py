"""The `tradewind` command: thin modules, one a command, loaded only when they are called."""
