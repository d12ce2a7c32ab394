"""The built-in corpus: docstrings of the standard library and of the hard dependencies (layer: data)."""

from __future__ import annotations

from pyro_nlp.data.docstring_records import DISTRIBUTIONS, STDLIB, installed, records
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.text import Sentence, TextCorpus, check_limits, cut
from pyro_nlp.data.tokenise import words

SHORTEST = 3
"""Words with a letter that a summary line needs to count as a sentence."""


class Docstrings(TextCorpus):
    """Summary lines of docstrings as sentences, the library they come from as label.

    The text is on every machine that runs this package. A sentence is in train, valid or test (80 / 10 / 10)
    by a hash of its words; one that occurs twice is kept once, under the library that is named first.

    Args:
        packages: import names, or "stdlib"; None for the standard library and those of torch, numpy, scipy,
            pandas, matplotlib, sympy, networkx, xarray, arviz and pyro that are installed.
        min_count: words seen less often in train become `<unk>`.
        max_length: longer sentences, in words, are left out.
    """

    attribute = "library"
    reference = "docstrings of the installed packages (their versions are recorded)"

    def __init__(self, packages: list[str] | None = None, min_count: int = 3, max_length: int = 40):
        check_limits(min_count, None, max_length)
        names = [STDLIB, *filter(installed, DISTRIBUTIONS)] if packages is None else list(dict.fromkeys(packages))
        if not names:
            raise CorpusError("packages is an empty list; name at least one, for instance stdlib")
        self.name = "docstrings"
        self.versions = {}
        sentences: dict[tuple[str, ...], int] = {}
        for label, name in enumerate(names):
            version, found = records(name)
            self.versions["python" if name == STDLIB else DISTRIBUTIONS.get(name, name)] = version
            for record in found:
                tokens = tuple(words(record.summary))
                if sum(token[0].isalpha() for token in tokens) >= SHORTEST:
                    sentences.setdefault(tokens, label)

        chosen = (Sentence(tokens, cut(tokens), names[label]) for tokens, label in sentences.items())
        self.build(
            chosen,
            min_count=min_count,
            max_length=max_length,
            overlong="drop",
            labelled=True,
            labels=names,
            keep=True,
        )
