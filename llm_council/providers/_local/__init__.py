"""The embedded engine: its process, its weights, and the schemas that it is sent."""
