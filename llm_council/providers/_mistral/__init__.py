"""What Mistral alone has; it speaks OpenAI's chat dialect, which is in ``_wire``."""
