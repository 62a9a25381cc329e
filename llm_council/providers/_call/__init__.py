"""The way into an adapter: fit the request, bound the call, check what comes back, map the errors."""
