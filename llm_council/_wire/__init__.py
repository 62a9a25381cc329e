"""The meaning of bytes: dialects as symmetrical codecs. Pure: no I/O, no clock, no environment."""
