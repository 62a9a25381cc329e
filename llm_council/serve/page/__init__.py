"""The page of the server: ask a council and watch it, in a browser. Needs the extra ``serve``."""
