"""Names of branch environments: scratch environments for a change, each beside the environment that it is of."""

import hashlib
import re

BRANCH_FILE = "branch.env"
"""The variables of a branch, in its folder. It is written when the branch is complete."""

BRANCH_OF_VARIABLE = "MLOPS_BRANCH_OF"
"""Names the environment that the branch is of."""

BRANCH_MADE_VARIABLE = "MLOPS_BRANCH_MADE"
"""Names the moment since which the branch reads files of the lake of that environment."""

BRANCHED_STORAGE_VARIABLE = "MLOPS_BRANCHED_STORAGE"
"""Names where the environment that the branch is of has the files of its lake, unless in its state folder."""

_PREFIX = "branch-"
_LONGEST = 30
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")


def branch_environment(name: str) -> str:
    """The name of the environment of the branch `name`, for `MLOPS_ENV` and on pages."""
    return f"{_PREFIX}{name}"


def branch_name(environment: str) -> str | None:
    """The name of the branch whose environment this is, None for any other environment."""
    name = environment.removeprefix(_PREFIX)
    return name if name != environment and _NAME.fullmatch(name) else None


def branch_name_of(text: str) -> str:
    """The name of the branch for `text`, such as a branch of git: lower case, digits and hyphens. Raises ValueError when nothing is left.

    Where letters or an end are left out it ends with a digest, so that two branches of git have two names.
    """
    text = text.strip().lower()
    words = "-".join(re.findall(r"[a-z0-9]+", text))
    if not any(map(str.isalnum, text)):
        raise ValueError(f"{text!r} has no letter and no digit.")
    if len(words) <= _LONGEST and not any(letter.isalnum() for letter in text if not letter.isascii()):
        return words
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{words[: _LONGEST - 9].strip('-')}-{digest}".strip("-")
