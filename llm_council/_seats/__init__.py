"""The seats of a council: turn names, instances and classes into adapters, and read attached files."""
