"""What OpenAI alone has; its two dialects, which many servers speak, are in ``_wire``."""
