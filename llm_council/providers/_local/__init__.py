"""The embedded engine: its process, its weights, and the schemas that are sent to it."""
