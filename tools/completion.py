"""Scripts that complete the commands and flags of a program in bash, zsh, fish and PowerShell.

Each script holds the table of commands, and asks no server: a line so far, and what may follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

# zsh runs it, too: "path" is its PATH there, and quotes of a subscript belong to the key
_BASH = """# bash completion for {name}
declare -gA _{name}_words=(
{rows})
_{name}() {{
    local at="{name}" word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        [[ $word == -* ]] && continue
        [[ -n ${{_{name}_words[$at $word]+set}} ]] && at="$at $word"
    done
    local begun="${{COMP_WORDS[COMP_CWORD]}}" may=""
    for word in ${{_{name}_words[$at]}} ${{_{name}_words[global]}}; do
        [[ $word == -* && $begun != -* ]] || may+=" $word"  # files are completed where nothing is left
    done
    COMPREPLY=($(compgen -W "$may" -- "$begun"))
}}
complete -o default -F _{name} {name}
"""

_ZSH = """#compdef {name}
autoload -U +X bashcompinit && bashcompinit
"""
_ZSH_FIRST = """# the first use loads this file
[[ $funcstack[1] != _{name} ]] || _bash_complete -o default -F _{name}
"""

_POWERSHELL = """# powershell completion for {name}
${title}Words = @{{
{rows}}}
Register-ArgumentCompleter -Native -CommandName {name} -ScriptBlock {{
    param($wordToComplete, $commandAst, $cursorPosition)
    $path = '{name}'
    foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {{
        $next = "$path $element"
        if (${title}Words.ContainsKey($next)) {{ $path = $next }}
    }}
    (${title}Words[$path] + ' ' + ${title}Words['global']) -split ' ' |
        Where-Object {{ $_ -like "$wordToComplete*" }} |
        Where-Object {{ $wordToComplete -like '-*' -or $_ -notlike '-*' }} |
        ForEach-Object {{ [System.Management.Automation.CompletionResult]::new($_) }}
}}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A command with its own flags, as (name, help)."""

    name: str
    short: str = ""
    flags: Sequence[tuple[str, str]] = ()
    children: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A program; ``flags`` may stand behind each of its commands."""

    root: Entry
    flags: Sequence[tuple[str, str]] = ()


def _paths(command: Entry, path: str) -> Iterator[tuple[str, Entry]]:
    """Every command with the words that lead to it, each after a blank."""
    yield path, command
    for child in command.children:
        yield from _paths(child, f"{path} {child.name}")


def _words(command: Entry) -> str:
    """What may follow a command: its subcommands and own flags."""
    children = [child.name for child in command.children]
    return " ".join([*children, *(f"--{name}" for name, _ in command.flags)])


def _globals(program: Program) -> str:
    return " ".join(f"--{name}" for name, _ in program.flags)


def bash(program: Program) -> str:
    """For bash 4 and later."""
    name = program.root.name
    rows = [f'  ["{path}"]="{_words(command)}"\n' for path, command in _paths(program.root, name)]
    return _BASH.format(name=name, rows="".join([*rows, f'  ["global"]="{_globals(program)}"\n']))


def zsh(program: Program) -> str:
    """By zsh's reading of bash's completions."""
    begins, ends = (text.format(name=program.root.name) for text in (_ZSH, _ZSH_FIRST))
    return begins + bash(program).replace("declare -gA", "typeset -gA") + ends


def fish(program: Program) -> str:
    name = program.root.name
    lines = [f"# fish completion for {name}", f"complete -c {name} -f"]
    for path, command in _paths(program.root, name):
        seen = " ".join(f"; and __fish_seen_subcommand_from {word}" for word in path.split()[1:])
        inner = " ".join(child.name for child in command.children)
        where = f"true{seen}" + (f"; and not __fish_seen_subcommand_from {inner}" if inner else "")
        for child in command.children:
            lines.append(f"complete -c {name} -n '{where}' -a {child.name} -d {_quoted(child.short)}")
        for flag, usage in command.flags:
            place = f"true{seen}" if command is not program.root else where
            lines.append(f"complete -c {name} -n '{place}' -l {flag} -d {_quoted(usage)}")
    lines += [f"complete -c {name} -l {flag} -d {_quoted(usage)}" for flag, usage in program.flags]
    return "\n".join(lines) + "\n"


def powershell(program: Program) -> str:
    """For PowerShell 5 and later."""
    name = program.root.name
    rows = [f"  '{path}' = '{_words(command)}'\n" for path, command in _paths(program.root, name)]
    rows.append(f"  'global' = '{_globals(program)}'\n")
    return _POWERSHELL.format(name=name, title=name.capitalize(), rows="".join(rows))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: dict[str, Callable[[Program], str]] = {
    "bash": bash, "zsh": zsh, "fish": fish, "powershell": powershell,
}
