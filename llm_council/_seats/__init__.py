"""The seats of a council: names, instances and classes become adapters."""
