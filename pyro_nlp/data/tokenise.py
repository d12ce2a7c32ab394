r"""Text to words and back (layer: data).

`words` lower-cases English with code in it and keeps code readable:

- reStructuredText and Markdown marks go: ``:class:`~torch.nn.Linear``` is `linear` (Sphinx shows the last
  part after `~`), ````np.array```` is `np.array`, `*emphasis*` is `emphasis`;
- dotted, hyphenated and underscored names are one word: `torch.nn`, `non-negative`, `__init__`, `--flag`;
- `'s` and every other mark of punctuation are words of their own, `...`, `->`, `==`, `()` each as one;
- numbers: a single digit stays, any other number is `N`, as in PTB; digits within a word stay (`conv2d`).

`whitespace` splits text that was tokenised before and changes nothing. `treebank` reads a sentence as text of the Penn
Treebank and much that came after it was tokenised. `detokenise` is for printing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Literal

from pyro_nlp.data.files import CorpusError

Tokeniser = Literal["words", "whitespace"]

_ROLE = re.compile(r"(?::[a-zA-Z][\w+.-]*)+:`([^`]*)`")
_TARGET = re.compile(r"\s*<[^<>]*>\s*$")
_LITERAL = re.compile(r"(`{1,2})([^`]+)\1_{0,2}")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=[^\W_])([^*\n]*?\w)\1(?![\w*])")
_WORD = re.compile(
    r"""
    https?://\S+                                   # an address
  | (?:e\.g\.|i\.e\.|etc\.|vs\.|cf\.)              # abbreviations that keep their point
  | '(?:s)\b                                       # the genitive
  | (?<![\w-])--[a-z][\w-]*                        # an option
  | (?<![\w)\]*])\*{1,2}[a-z_]\w*                  # *args
  | \\[a-z]+                                       # a LaTeX command
  | \d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w)            # 10,000
  | \w+(?:[.-]\w+|'(?!s\b)\w+)*                    # words, names, numbers
  | \.\.\.|\(\)|->|=>|[=!<>]=|--+                  # marks of several characters
  | [^\w\s]
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(r"\d[\d_]*(?:[.,]\d+)*(?:\.?e[+-]?\d+)?|0x[\da-f]+|\d+(?:-\d+)+")
_DIGITS = frozenset("0123456789")


def _role(match: re.Match[str]) -> str:
    text = _TARGET.sub("", match[1]) or match[1]
    return text.lstrip("~").rpartition(".")[2] if text.startswith("~") else text.lstrip("!.")


def _literal(match: re.Match[str]) -> str:
    text = match[2]  # a leading point makes Sphinx search, and is not part of the name
    return text[1:] if text[0] == "." and text[1:2].isalpha() else text


def words(text: str) -> list[str]:
    """Lower-cased words of an English text with code in it (see above)."""
    if "`" in text:
        text = _LITERAL.sub(_literal, _ROLE.sub(_role, text))
    if "*" in text:
        text = _EMPHASIS.sub(r"\2", text)
    found = _WORD.findall(text.lower())
    return ["N" if w[0] in _DIGITS and len(w) > 1 and _NUMBER.fullmatch(w) else w for w in found]


def whitespace(text: str) -> list[str]:
    """Words of a text that was tokenised before."""
    return text.split()


def lowered(text: str) -> list[str]:
    """The same, lower-cased."""
    return text.lower().split()


def _rules(*pairs: tuple[str, str]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), to) for pattern, to in pairs)


_QUOTES = _rules((r'(^|[\s(\[{<])"', r"\1 `` "), (r'"', " '' "))
_MARKS = _rules(
    (r"(``|\.{3,}|--+)", r" \1 "),
    (r"(?<!')''(?!')", " '' "),
    (r"([,:])(?!\d)|(?<!\d)([,:])", r" \1\2 "),
    (r"([;@#$%&?!\[\](){}<>])", r" \1 "),
    (r"(?<![.\s])\.(?=[\])}>'\s]*$)", " . "),
    (r"(?<=[^'\s])'(?=\s|$)", " ' "),
)
_CONTRACTIONS = _rules(
    (r"(?<=[^'\s])('s|'m|'d|'ll|'re|'ve|n't)(?!\w)", r" \1 "),
    (r"\b(can)(not)\b", r"\1 \2"),
)


def treebank(text: str) -> list[str]:
    """Words of an English sentence as the Penn Treebank has them, but for its names of brackets.

    As in the script of its makers, the point that ends the text is a word and any other is not; `"` is two graves or
    two apostrophes, `n't` and `'s` are words. A sentence that was so tokenised before stays as it is.

    Example:
        >>> treebank('He said: "It isn\'t Mr. Smith\'s."')
        ['He', 'said', ':', '``', 'It', 'is', "n't", 'Mr.', 'Smith', "'s", '.', "''"]
    """
    return _ruled(text, (*_QUOTES, *_MARKS, *_CONTRACTIONS))


def lowered_treebank(text: str) -> list[str]:
    """The same, lower-cased: `SST` and `YelpStyle` are so."""
    return treebank(text.lower())


def lowered_marks(text: str) -> list[str]:
    """The same, but that contractions are one word and `"` stays: `Polarity` is so.

    Example:
        >>> lowered_marks("It isn't Smith's.")
        ['it', "isn't", "smith's", '.']
    """
    return _ruled(text.lower().replace('"', ' " '), _MARKS)


def _ruled(text: str, rules: Iterable[tuple[re.Pattern[str], str]]) -> list[str]:
    for pattern, to in rules:
        text = pattern.sub(to, text)
    return text.split()


def choose_tokeniser(name: Tokeniser) -> Callable[[str], list[str]]:
    """The function of that name."""
    known = {"words": words, "whitespace": whitespace}
    if name not in known:
        raise CorpusError(f"tokeniser {name!r} is unknown; give {' or '.join(known)}")
    return known[name]


_CLOSING = frozenset((*".,;:!?)]}%", "()", "...", "'s", "n't", "'m", "'re", "'ve", "'d", "'ll"))
_OPENING = frozenset("([{$")


def detokenise(tokens: Iterable[str]) -> str:
    """A readable line from words: no space before closing marks, after opening ones or within quotes."""
    line, glue = "", True
    quoted = {'"': False, "'": False}
    for token in tokens:
        closes_quote = quoted.get(token, False)
        line += token if glue or closes_quote or token in _CLOSING else f" {token}"
        if token in quoted:
            quoted[token] = not closes_quote
        glue = token in _OPENING or quoted.get(token, False)
    return line
