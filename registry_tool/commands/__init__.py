"""commands: the command line by subject: parse, call a flow, render, exit. Decides nothing."""
