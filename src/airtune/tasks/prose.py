"""English sentences out of docstrings: markup, doctests, headings, tables and code are left behind.

This module knows reStructuredText habits and English sentence ends. It does not know where a docstring came from, nor
what its sentences will be used for. Its result depends on the text alone: no locale, no hash seed, no file order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MIN_WORDS, MAX_WORDS = 5, 60

_DOCTEST = re.compile(r"\s*(>>>|\.\.\. )")
_RULE = re.compile(r"\s*([=\-~*^+_#.'\"`])\1{2,}[\s=\-+|]*$")
_BULLET = re.compile(r"\s*([-*+o•]|\(?\d{1,2}[.)]|\(?[a-z]\)|:\w+[^:]*:|\.\. [\w-]+::)\s+")
_ROLE = re.compile(r":[a-z:]+:`~?")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)([^*]+?)(?<=\S)\1(?![\w*])")
_QUOTES = re.compile(r"[`\"“”]")
_FOOTNOTE = re.compile(r"\s*\[\d+\]_?")
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)(?<!vs\.)(?<!cf\.)\)?\s+(?=[A-Z(])")
_CODE = re.compile(r"[=|{}<>\\\[\]@#$%^~]|->|\.\.\.|\w\(\w|::|--|  ")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*[.,;:!?)]*")


def sentences(document: str) -> Iterator[str]:
    """Yield the sentences of a docstring in reading order: plain words, one line each, 5 to 60 words long."""
    for paragraph in _paragraphs(document):
        for sentence in _SENTENCE_END.split(_plain(paragraph)):
            sentence = sentence.strip(" ;,-*")
            if _is_prose(sentence):
                yield sentence


def _paragraphs(document: str) -> Iterator[str]:
    """Join the lines that belong together; a blank line, a bullet or a change of indentation starts anew."""
    lines: list[str] = []
    indent, in_doctest = 0, False
    for line in [*document.expandtabs().splitlines(), ""]:
        blank, bullet = not line.strip(), _BULLET.match(line)
        in_doctest = not blank and (in_doctest or _DOCTEST.match(line) is not None)
        if _RULE.match(line):
            lines = lines[:-1]  # what stands above a rule is a heading
        begins = len(line) - len(line.lstrip())
        if lines and (blank or in_doctest or bullet or begins != indent or _RULE.match(line)):
            yield " ".join(lines)
            lines = []
        if not (blank or in_doctest or _RULE.match(line)):
            text = line[bullet.end() :] if bullet else line
            indent = bullet.end() if bullet else begins
            lines.append(text.strip())


def _plain(paragraph: str) -> str:
    """Strip roles, quotes, emphasis and footnote marks; keep the words inside them."""
    text = _QUOTES.sub("", _ROLE.sub("", paragraph))
    return _FOOTNOTE.sub("", _EMPHASIS.sub(r"\2", text))


def _is_prose(sentence: str) -> bool:
    """Tell an English sentence from a signature, a table row or a fragment."""
    words = sentence.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not sentence[0].isalpha() or sentence[-1] == ":":
        return False
    plain = sum(_WORD.fullmatch(word) is not None for word in words)
    return _CODE.search(sentence) is None and plain >= 0.75 * len(words)
