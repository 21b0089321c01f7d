"""``completion``: scripts that complete commands and flags.

Each script holds the table of commands, and asks no server: a line so far, and what may follow it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tools.musterctl.command import Command, Exit, Invocation

_BASH = """# bash completion for musterctl
declare -gA _musterctl_words=(
{rows})
_musterctl() {{
    local path="musterctl" word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        [[ $word == -* ]] && continue
        [[ -n ${{_musterctl_words["$path $word"]+set}} ]] && path="$path $word"
    done
    local words="${{_musterctl_words["$path"]}} ${{_musterctl_words[global]}}"
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _musterctl musterctl
"""

_ZSH = """#compdef musterctl
autoload -U +X bashcompinit && bashcompinit
"""

_POWERSHELL = """# powershell completion for musterctl
$MusterctlWords = @{{
{rows}}}
Register-ArgumentCompleter -Native -CommandName musterctl -ScriptBlock {{
    param($wordToComplete, $commandAst, $cursorPosition)
    $path = 'musterctl'
    foreach ($element in $commandAst.CommandElements | Select-Object -Skip 1) {{
        $next = "$path $element"
        if ($MusterctlWords.ContainsKey($next)) {{ $path = $next }}
    }}
    ($MusterctlWords[$path] + ' ' + $MusterctlWords['global']) -split ' ' |
        Where-Object {{ $_ -like "$wordToComplete*" }} |
        ForEach-Object {{ [System.Management.Automation.CompletionResult]::new($_) }}
}}
"""


def _paths(command: Command, path: str = "musterctl") -> Iterator[tuple[str, Command]]:
    """Every command with the words that lead to it, each after a blank."""
    yield path, command
    for child in command.children:
        yield from _paths(child, f"{path} {child.name}")


def _words(command: Command) -> list[str]:
    """What may follow a command: its subcommands and own flags."""
    flags = command.local_flags() if command.parent is not None else []
    return [*(child.name for child in command.children), *(f"--{flag.name}" for flag in flags)]


def _globals(root: Command) -> list[str]:
    return [f"--{flag.name}" for flag in root.local_flags()]


def bash(root: Command) -> str:
    """For bash 4 and later."""
    rows = [f'  ["{path}"]="{" ".join(_words(command))}"\n' for path, command in _paths(root)]
    return _BASH.format(rows="".join([*rows, f'  ["global"]="{" ".join(_globals(root))}"\n']))


def zsh(root: Command) -> str:
    """By zsh's reading of bash's completions."""
    return _ZSH + bash(root).replace("declare -gA", "typeset -gA")


def fish(root: Command) -> str:
    lines = ["# fish completion for musterctl", "complete -c musterctl -f"]
    for path, command in _paths(root):
        seen = " ".join(f"; and __fish_seen_subcommand_from {word}" for word in path.split()[1:])
        inner = " ".join(child.name for child in command.children)
        where = f"true{seen}" + (f"; and not __fish_seen_subcommand_from {inner}" if inner else "")
        for child in command.children:
            lines.append(f"complete -c musterctl -n '{where}' -a {child.name} -d {_quoted(child.short)}")
        if command.parent is not None:
            for flag in command.local_flags():
                lines.append(f"complete -c musterctl -n 'true{seen}' -l {flag.name} -d {_quoted(flag.usage)}")
    lines += [f"complete -c musterctl -l {flag.name} -d {_quoted(flag.usage)}" for flag in root.local_flags()]
    return "\n".join(lines) + "\n"


def powershell(root: Command) -> str:
    """For PowerShell 5 and later."""
    rows = [f"  '{path}' = '{' '.join(_words(command))}'\n" for path, command in _paths(root)]
    return _POWERSHELL.format(rows="".join([*rows, f"  'global' = '{' '.join(_globals(root))}'\n"]))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish, "powershell": powershell}


def completion(invocation: Invocation) -> None:
    from tools.musterctl.commands.table import root

    shell = SHELLS.get(invocation.command.name)
    if shell is None or invocation.args:
        raise Exit(128, "completion command needs one shell and no argument")
    print(shell(root()), end="")
