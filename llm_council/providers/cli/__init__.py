"""Command-line agents as providers: a program that is signed in answers requests, contained and with its tools off."""
