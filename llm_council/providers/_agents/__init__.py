"""The command-line agents: one file per program, and what all of them share."""
