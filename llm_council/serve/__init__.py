"""Serve a council: an endpoint that speaks OpenAI's Chat Completions. Needs the extra ``serve``."""
