"""The server half of each dialect, one module per dialect, for fake servers and tests."""
