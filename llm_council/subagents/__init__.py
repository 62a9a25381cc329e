"""Subagents: roles that a council can take, each defined by a data file.

A subagent has prompts (who the models are, what to look for in the other drafts, what the final answer must achieve), a
schema of the answer, and preferences. A *mode* is a variant of a subagent. ``BUILT_IN`` lists the subagents of this
package and ``ALIASES`` their other names. TOML files, folders of them and entry points of the group
``llm_council.subagents`` add more.
"""

from __future__ import annotations

from llm_council.subagents._file import Preferences, Subagent, SubagentInfo
from llm_council.subagents._find import ALIASES, BUILT_IN, GROUP, from_file, load, names

__all__ = ["ALIASES", "BUILT_IN", "GROUP", "Preferences", "Subagent", "SubagentInfo", "from_file", "load", "names"]
