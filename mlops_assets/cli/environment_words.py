"""The environment that a command line is about, known before any command looks at it: the audit log is that environment's, too."""

from collections.abc import Sequence

_OPTION = "--env"


def split_environment(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The environment that the words name, and the words without the options before the command.

    It stands before the command, as `--env prod`, or is the target of a promotion from another one: `promote x --from staging --to prod`.
    It is empty where a variable that was to name it is: that is no environment, and not the default one.
    """
    left = list(words)
    named = None
    while left and left[0].startswith(_OPTION):
        option, has_value, value = left.pop(0).partition("=")
        if option != _OPTION:
            return None, list(words)
        if not has_value:
            if not left:
                break  # an option without its value, which is refused as any other
            value = left.pop(0)
        named = value
    if named is None and left[:1] == ["promote"] and _value_of("--from", left):
        named = _value_of("--to", left)
    return named, left


def _value_of(option: str, words: Sequence[str]) -> str | None:
    for position, word in enumerate(words):
        if word == option and position + 1 < len(words):
            return words[position + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
