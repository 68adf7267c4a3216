"""Exit codes of `tradewind`, the same for every command; scripts may rely on them."""

OK = 0
VIOLATIONS = 1  # the audit found something
USAGE = 2  # wrong arguments or settings
ENVIRONMENT = 3  # something that is needed is missing, taken, unreachable or of another version
NOT_RUNNING = 4  # nothing runs on this data folder
ALREADY_RUNNING = 5  # something runs on this data folder
REFUSED = 6  # the system refused what was asked, for a named reason
INTERRUPTED = 130  # Ctrl-C; everything was stopped
