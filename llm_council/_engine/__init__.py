"""The engine: a plan and some adapters become a result. See ``run.conduct``."""
