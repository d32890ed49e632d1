"""`hexad completion bash|zsh|fish`: a script that completes verbs, flags, their values and the models on this disk.

It is made from the parser and runs in the shell alone: a Tab starts no Python. zsh reads bash's script through its
`bashcompinit`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from hexad.cli.main import parser_of

BASH = r"""# Completion of hexad for {shell}. Try it: source <(hexad completion {shell})
_hexad_models() {{
    local hub="${{HF_HUB_CACHE:-${{HF_HOME:-$HOME/.cache/huggingface}}/hub}}" found
    echo demo
    for found in "$hub"/models--*; do
        [ -d "$found" ] && found="${{found##*/models--}}" && echo "${{found/--//}}"
    done
    for found in ./*/config.json; do
        [ -f "$found" ] && echo "${{found%/config.json}}"
    done
}}
_hexad() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" verb="${{COMP_WORDS[1]}}"
    local words="" files="" directories="" place=0 i
    if [ "$COMP_CWORD" -gt 1 ]; then
        for ((i = 2; i < COMP_CWORD; i++)); do
            case "${{COMP_WORDS[i-1]}}" in {takers}) continue ;; esac
            case "${{COMP_WORDS[i]}}" in -*) ;; *) place=$((place + 1)) ;; esac
        done
        case "$before" in
{values}
            *)
                case "$verb $place $current" in
{flags}
{places}
                esac ;;
        esac
    else
        words="{verbs}"
    fi
    case "$files$current" in
        yes*) COMPREPLY=($(compgen -f -- "$current")) ;;
        *) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    esac
    if [ -n "$directories" ] && [ ${{#COMPREPLY[@]}} -eq 0 ]; then COMPREPLY=($(compgen -d -- "$current")); fi
}}
complete -F _hexad hexad
"""

FISH = r"""# Completion of hexad for fish. Keep it: hexad completion fish > ~/.config/fish/completions/hexad.fish
function __hexad_models
    set -l hub ~/.cache/huggingface/hub
    set -q HF_HOME; and set hub $HF_HOME/hub
    set -q HF_HUB_CACHE; and set hub $HF_HUB_CACHE
    echo demo
    for found in $hub/models--*
        string replace -r '.*/models--' '' $found | string replace -- -- /
    end
    for found in */config.json
        string replace -r '/config\.json$' '' $found
    end
end
complete -c hexad -f
"""


class Word(NamedTuple):
    """A flag, or with an empty name a positional: what may follow it. `takes`: nothing, a value, a file, a model."""

    name: str
    help: str
    takes: str
    values: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    verbs = {verb: list(_words(parser)) for verb, parser in _verbs().items()}
    print(_fish(verbs) if args.shell == "fish" else _bash(verbs, args.shell), end="")
    return 0


def _verbs() -> dict[str, argparse.ArgumentParser]:
    for action in parser_of(show_all=True)._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    raise AssertionError("hexad has verbs")


def _words(parser: argparse.ArgumentParser) -> Iterator[Word]:
    for action in parser._actions:
        shown = action.metavar if isinstance(action.metavar, str) else ""
        values = tuple(action.choices) if action.choices else tuple(shown.split("|") if "|" in shown else ())
        takes = (
            "model" if action.dest == "model" else "file" if shown in ("FILE", "DIR") or ".json" in shown else "value"
        )
        for name in action.option_strings or [""]:
            yield Word(name, action.help or "", "" if name and action.nargs == 0 else takes, values)


def _bash(verbs: dict[str, list[Word]], shell: str) -> str:
    flags = {word.name: word for words in verbs.values() for word in words if word.name.startswith("--")}
    takers = [word for word in flags.values() if word.takes]
    values = [f"            {word.name}) {_follow(word)} ;;" for word in takers if word.values or word.takes == "file"]
    others = [word.name for word in takers if not word.values and word.takes != "file"]
    values.append(f"            {'|'.join(others)}) ;;")
    dashed = [f'                    "{verb} "*" -"*) words="{_names(words)}" ;;' for verb, words in verbs.items()]
    places = []
    for verb, words in verbs.items():
        positionals = [word for word in words if not word.name]
        for i, word in enumerate(positionals):
            last = verb in ("serve", "batch") and i + 1 == len(positionals)
            places.append(f'                    "{verb} "{"*" if last else i}" "*) {_follow(word)} ;;')
    script = BASH.format(
        shell=shell,
        takers="|".join(word.name for word in takers),
        values="\n".join(values),
        flags="\n".join(dashed),
        places="\n".join(places),
        verbs=" ".join(verbs),
    )
    return script if shell == "bash" else "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" + script


def _names(words: list[Word]) -> str:
    return " ".join(word.name for word in words if word.name.startswith("--"))


def _follow(word: Word) -> str:
    if word.takes == "file":
        return "files=yes"
    return 'directories=yes words="$(_hexad_models)"' if word.takes == "model" else f'words="{" ".join(word.values)}"'


def _fish(verbs: dict[str, list[Word]]) -> str:
    lines = []
    for verb, words in verbs.items():
        lines.append(f"complete -c hexad -n __fish_use_subcommand -a {verb}")
        for word in words:
            line = f"complete -c hexad -n '__fish_seen_subcommand_from {verb}'"
            line += (
                f" -l {word.name[2:]}" if word.name.startswith("--") else f" -s {word.name[1:]}" if word.name else ""
            )
            if word.takes == "model":
                line += " -a '(__hexad_models)'"
            elif word.takes == "file":
                line += " -r -F" if word.name else " -F"
            elif word.takes:
                line += f" -x -a '{' '.join(word.values)}'" if word.name else f" -a '{' '.join(word.values)}'"
            help = "" if word.help == argparse.SUPPRESS else word.help.replace("\\", "\\\\").replace("'", "\\'")
            lines.append(line + f" -d '{help}'" * bool(help))
    return FISH + "\n".join(lines) + "\n"
