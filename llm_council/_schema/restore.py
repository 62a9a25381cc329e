"""Take out of an answer what the projection of its schema added: nulls for absent properties, and the wrapper.

``project_strict`` builds a ``Walk`` for every schema that it projects. It follows the answer along the projected
schema, and chooses the branch of a union by both: what the vendor wrote is valid by the projected branch, and what is
left of it by the original union.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs

from llm_council._schema.validate import WRAPPER

__all__ = ["Branch", "ListWalk", "ObjectWalk", "ReferenceWalk", "ShapeWalk", "UnionWalk", "Walk", "WrapperWalk"]

Accepts = Callable[[Any], bool]


class Walk:
    """The way through values of a schema to which the projection added nothing, and of scalars."""

    def restore(self, value: Any) -> Any:
        """Return the value without the additions; the same object if there are none."""
        return value


@attrs.define(eq=False, slots=False)
class ObjectWalk(Walk):
    """Objects.

    Attributes:
        properties: the walk of each property.
        nullable: the names of the properties for which null was allowed, meaning that they are absent.
        further: the walk of properties without a name.
    """

    properties: Mapping[str, Walk]
    nullable: frozenset[str] = frozenset()
    further: Walk = attrs.field(factory=Walk)

    def restore(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        restored = {
            name: self.properties.get(name, self.further).restore(item)
            for name, item in value.items()
            if not (item is None and name in self.nullable)
        }
        is_same = len(restored) == len(value) and all(restored[name] is item for name, item in value.items())
        return value if is_same else restored


@attrs.define(eq=False, slots=False)
class ListWalk(Walk):
    """Lists of values of one schema, after some of their own."""

    items: Walk
    first: Sequence[Walk] = ()

    def restore(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        walks = [*self.first[: len(value)], *[self.items] * (len(value) - len(self.first))]
        restored = [walk.restore(item) for walk, item in zip(walks, value, strict=True)]
        return value if all(new is old for new, old in zip(restored, value, strict=True)) else restored


@attrs.define(eq=False, slots=False)
class ShapeWalk(Walk):
    """Values that may be objects, lists, or neither."""

    objects: Walk
    lists: Walk

    def restore(self, value: Any) -> Any:
        return self.lists.restore(value) if isinstance(value, list) else self.objects.restore(value)


@attrs.define(eq=False, slots=False)
class ReferenceWalk(Walk):
    """Values of a schema that is named elsewhere; it may lead back to itself."""

    find: Callable[[], Walk]

    def restore(self, value: Any) -> Any:
        return self.find().restore(value)


@attrs.define(eq=False, slots=False)
class Branch:
    """A branch of a union: the walk of its values, and the check of the projected branch, made on first use."""

    walk: Walk
    make_check: Callable[[], Accepts]

    @cached_property
    def accepts(self) -> Accepts:
        return self.make_check()


@attrs.define(eq=False, slots=False)
class UnionWalk(Walk):
    """Values of one of several branches."""

    branches: Sequence[Branch]
    make_check: Callable[[], Accepts]

    @cached_property
    def accepts(self) -> Accepts:
        """The check of the original union."""
        return self.make_check()

    def restore(self, value: Any) -> Any:
        if not isinstance(value, dict | list):
            return value
        written = [branch for branch in self.branches if branch.accepts(value)]
        # A vendor that does not enforce all of the schema may have written what no branch accepts.
        candidates = [branch.walk.restore(value) for branch in written or self.branches]
        for candidate in candidates:
            if self.accepts(candidate):
                return candidate
        return candidates[0] if written else value


@attrs.define(eq=False, slots=False)
class WrapperWalk(Walk):
    """The object around an answer that is no object."""

    inner: Walk

    def restore(self, value: Any) -> Any:
        is_wrapper = isinstance(value, dict) and value.keys() == {WRAPPER}
        return self.inner.restore(value[WRAPPER] if is_wrapper else value)
