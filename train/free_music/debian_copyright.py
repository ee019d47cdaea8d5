"""The licence of one file of a Debian package, from the package's `copyright` file."""

import dataclasses
import fnmatch
from pathlib import PurePosixPath

_SURE = 2  # literal parts of a path that a pattern has to share with a file whose folder was moved


@dataclasses.dataclass(frozen=True)
class Terms:
    """What a `copyright` file says about some files.

    Attributes:
      patterns: paths in the source package, with `*` and `?`.
      licence: the short name, such as CC-BY-SA-3.0.
      authors: the lines of the copyright statement.
    """

    patterns: tuple[str, ...]
    licence: str
    authors: tuple[str, ...]


def parse(text: str) -> list[Terms]:
    """The stanzas of a machine-readable `copyright` file; none where it is prose.

    Format: www.debian.org/doc/packaging-manuals/copyright-format/1.0
    """
    stanzas = [_fields(stanza) for stanza in _stanzas(text)]
    if not stanzas or "format" not in stanzas[0]:
        return []
    return [
        Terms(
            tuple(" ".join(fields["files"]).split()),
            fields["license"][0].strip() if fields.get("license") else "",
            tuple(line for line in map(str.strip, fields.get("copyright", ())) if line),
        )
        for fields in stanzas[1:]
        if "files" in fields
    ]


def terms_of(path: str, stanzas: list[Terms]) -> Terms | None:
    """The last stanza about a file of the built package; the format lets the last one decide.

    Patterns name files of the source package, which building moves: `base/music/a.ogg` becomes
    `usr/share/games/NAME/base/archive.pk3/music/a.ogg`. A pattern is about a file if it matches the end of
    the file's path, or if the end of the pattern does and holds two names without `*` and `?`.
    """
    found = None
    for terms in stanzas:
        if any(_is_about(pattern, path) for pattern in terms.patterns):
            found = terms
    return found


def _is_about(pattern: str, path: str) -> bool:
    parts = PurePosixPath(path).parts
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    names = pattern.removeprefix("./").split("/")
    for start in range(len(names)):
        rest = names[start:]
        literal = sum(not set("*?") & set(name) for name in rest)
        if start and literal < _SURE:
            break
        wanted = "/".join(rest).replace("[", "[[]")  # no special sign in this format
        if any(fnmatch.fnmatchcase(end, wanted) for end in ends):
            return True
    return False


def _stanzas(text: str) -> list[list[str]]:
    stanzas: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.strip():
            stanzas[-1].append(line)
        elif stanzas[-1]:
            stanzas.append([])
    return [stanza for stanza in stanzas if stanza]


def _fields(lines: list[str]) -> dict[str, list[str]]:
    """The lines of each field, its name in small letters."""
    fields: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lines:
        name, colon, value = line.partition(":")
        if line[0].isspace() or not colon:
            current.append(line)
        else:
            current = fields.setdefault(name.lower(), [])
            current.append(value)
    return fields
