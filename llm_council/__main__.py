"""``python -m llm_council``: the ``council`` command."""

from llm_council.cli import main

if __name__ == "__main__":
    main()
