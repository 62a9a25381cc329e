"""Print the path of the system's Chromium, and install Debian's where there is none.

``LLM_COUNCIL_CHROMIUM`` may name another browser of that kind. Installing needs root and apt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """Return the path of the browser; None if there is none."""
    named = os.environ.get("LLM_COUNCIL_CHROMIUM")
    if named:
        return shutil.which(named)
    return next((path for path in map(shutil.which, NAMES) if path), None)


def main() -> int:
    """Print the path of the browser; return 1 if there is none and none could be installed."""
    path = find()
    apt = shutil.which("apt-get")
    if path is None and apt is not None and hasattr(os, "geteuid") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run([apt, "-qq", "update"], env=environment, check=False, stdout=sys.stderr)
        subprocess.run(
            [apt, "-qq", "install", "--yes", "--no-install-recommends", "chromium"],
            env=environment,
            check=False,
            stdout=sys.stderr,
        )
        path = find()
    if path is None:
        print("no Chromium: install one, or name it with LLM_COUNCIL_CHROMIUM", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
