"""Print the floors of the package: folders and top-level files as nodes, imports as arrows.

usage: python tools/floors.py

A node's floor is one above the highest node that it imports. ``__init__``, ``__main__`` and tests do not count. The
exit status is 1 if nodes import each other in a circle, or if there are more nodes or floors than ``LIMITS``.
"""

from __future__ import annotations

import sys
from graphlib import CycleError, TopologicalSorter

import grimp

PACKAGE = "llm_council"
LIMITS = {"nodes": 26, "floors": 12}


def imports_of_nodes() -> dict[str, set[str]]:
    """Return for each top-level node the nodes that it imports."""
    graph = grimp.build_graph(PACKAGE)
    nodes = {child.split(".")[1] for child in graph.find_children(PACKAGE)} - {"__main__"}
    arrows: dict[str, set[str]] = {node: set() for node in nodes}
    for module in graph.modules:
        source = module.split(".")[1] if "." in module else None
        if source not in nodes:
            continue
        for imported in graph.find_modules_directly_imported_by(module):
            target = imported.split(".")[1] if "." in imported else None
            if target in nodes and target != source:
                arrows[source].add(target)
    return arrows


def floors_of(arrows: dict[str, set[str]]) -> dict[str, int]:
    """Return the floor of each node, counted from 1.

    Raises:
        CycleError: nodes import each other in a circle.
    """
    floors: dict[str, int] = {}
    for node in TopologicalSorter(arrows).static_order():
        floors[node] = 1 + max((floors[target] for target in arrows[node]), default=0)
    return floors


def main() -> int:
    """Print one line a floor, from the top, and the figures."""
    arrows = imports_of_nodes()
    try:
        floors = floors_of(arrows)
    except CycleError as error:
        print(f"circle: {' -> '.join(error.args[1])}")  # noqa: T201
        return 1
    highest = max(floors.values())
    for floor in range(highest, 0, -1):
        print(f"{floor:2}  {'  '.join(sorted(node for node in floors if floors[node] == floor))}")  # noqa: T201
    count = sum(len(targets) for targets in arrows.values())
    print(f"{len(floors)} nodes, {highest} floors, {count} arrows, no circle")  # noqa: T201
    return int(len(floors) > LIMITS["nodes"] or highest > LIMITS["floors"])


if __name__ == "__main__":
    sys.exit(main())
