"""The planted keys."""

KEY = "zz9plural7canary0alpha"  # of no vendor's shape: it is known for a key by being one, not by its looks
TOKEN = "qq4second2canary8omega"
