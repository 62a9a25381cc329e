"""The scripts that ``council completion`` prints for bash and fish; that for zsh is click's own.

click's script for bash takes the words as bash splits them, also at colons and equals signs. It does not understand
``local:2`` and ``--chair=x``. Its script for fish cuts a candidate at the first comma, as in ``openai,anthropic``. The
scripts here pass the line as it is typed, and read a candidate to its end.
"""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)

__all__ = ["register"]

_BASH = """\
%(complete_func)s() {
    local kind value
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done < <(env COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD= COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2> /dev/null || complete -F %(complete_func)s %(prog_name)s
"""

_FISH = """\
function %(complete_func)s
    set -lx COMP_WORDS (commandline -cp)
    set -lx COMP_CWORD (commandline -t)
    for line in (env %(complete_var)s=fish_complete %(prog_name)s)
        set -l found (string split -m 1 , -- $line)
        switch $found[1]
            case plain
                echo $found[2]
            case file
                __fish_complete_path $found[2]
            case dir
                __fish_complete_directories $found[2]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Bash(BashComplete):
    source_template = _BASH

    def source(self) -> str:
        return ShellComplete.source(self)  # without click's search for the version of bash, which starts one

    def get_completion_args(self) -> tuple[list[str], str]:
        if os.environ.get("COMP_CWORD"):  # a script of click's form, which an earlier version has printed
            return super().get_completion_args()
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        incomplete = words.pop() if line.strip() and not line[-1].isspace() else ""
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return the candidates; of each, what replaces the part of the word that bash takes for the whole."""
        found = super().get_completions(args, incomplete)
        is_option, _, value = incomplete.partition("=")
        word = value if value and is_option.startswith("-") else incomplete
        if os.environ.get("COMP_CWORD") or ":" not in os.environ.get("COMP_WORDBREAKS", ""):
            return found
        before = word[: word.rfind(":") + 1]
        for item in found:
            item.value = item.value.removeprefix(before)
        return found


class _Fish(FishComplete):
    source_template = _FISH


def register() -> None:
    """Make click use these scripts for bash and fish."""
    add_completion_class(_Bash)
    add_completion_class(_Fish)
