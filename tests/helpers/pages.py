"""The pages of the documentation as data: fenced blocks, commands, headings and links."""

import dataclasses
import functools
import re
import shlex
from pathlib import Path

from places import ROOT

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE_LINK = re.compile(r"\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
_USED_REFERENCE = re.compile(r"\]\[([^\]]+)\]")
_LINK_TEXT = re.compile(r"\[([^\]]*)\]\([^)]*\)")


@dataclasses.dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    language: str
    text: str
    line: int  # of its first line in the page

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block, chained ones apart."""
        text = self.text.replace("\\\n", " ")
        lines = [shlex.split(line, comments=True) for line in text.splitlines()]
        commands = []
        for words in filter(None, lines):
            commands.append([])
            for word in words:
                if word == "&&":
                    commands.append([])
                else:
                    commands[-1].append(word)
        return commands


@dataclasses.dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """Relative to the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @functools.cached_property
    def text(self) -> str:
        """As it stands there."""
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        """In their order."""
        return [
            Block(found[1], found[2], self.text.count("\n", 0, found.start()) + 2)
            for found in _FENCE.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """Everything outside of the blocks."""
        return _FENCE.sub("", self.text)

    @property
    def anchors(self) -> set[str]:
        """Of its headings, as GitHub makes them."""
        return {_anchor(heading) for heading in _HEADING.findall(self.prose)}

    @property
    def links(self) -> list[str]:
        """Targets of all links and pictures."""
        return _INLINE_LINK.findall(self.prose) + [target for _, target in _REFERENCE.findall(self.prose)]

    @property
    def undefined_references(self) -> set[str]:
        """Labels of `[text][label]` that the page does not define."""
        return set(_USED_REFERENCE.findall(self.prose)) - {
            label for label, _ in _REFERENCE.findall(self.prose)
        }


def pages() -> list[Page]:
    """Every page, the README first."""
    others = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [Page(path) for path in (ROOT / "README.md", *others)]


def _anchor(heading: str) -> str:
    text = _LINK_TEXT.sub(r"\1", heading).replace("`", "").lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
