"""What every call of an adapter passes: fit the request, bound the call, check what comes back, map the errors."""
