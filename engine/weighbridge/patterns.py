"""Which names globs select."""

import fnmatch
from collections.abc import Callable, Sequence


def patterns(globs: str | Sequence[str]) -> list[str]:
    """Globs as a list; one string is one of them."""
    return [globs] if isinstance(globs, str) else list(globs)


def wanted(include: str | Sequence[str], exclude: str | Sequence[str]) -> Callable[[str], bool]:
    """Whether globs select a name: any of `include`, all where there is none, but none of `exclude`."""
    some, none = patterns(include), patterns(exclude)

    def selects(name: str) -> bool:
        included = not some or any(fnmatch.fnmatchcase(name, glob) for glob in some)
        return included and not any(fnmatch.fnmatchcase(name, glob) for glob in none)

    return selects
