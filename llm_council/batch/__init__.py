"""Many tasks in one go."""
