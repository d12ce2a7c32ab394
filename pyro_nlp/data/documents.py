"""The built-in corpus as documents: what the docstrings of a module are about (layer: data)."""

from __future__ import annotations

import numpy as np

from pyro_nlp.data.bags import bags, check_choice, choose_words, content_words
from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.docstring_records import DISTRIBUTIONS, STDLIB, installed, records
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.text_files import SHARE


class DocstringDocuments(CountCorpus):
    """All docstrings of a module as one document, the library it belongs to as label.

    Of each docstring the summary and the paragraph after it count, lower-cased, without punctuation, numbers and
    common function words. A module is in train, valid or test (80 / 10 / 10) at random; the words are chosen from
    train. Modules of few words are left out and counted (`dropped_by_split`).

    Args:
        packages: import names, or "stdlib"; None for the standard library and those of torch, numpy, scipy,
            pandas, matplotlib, sympy, networkx, xarray, arviz and pyro that are installed.
        min_documents: words in fewer modules are left out.
        max_document_share: words in a larger share of the modules are left out.
        max_size: bound on the vocabulary; None for no bound.
        min_words: modules with fewer words of the vocabulary are left out.
        seed: of the choice of the splits.
    """

    reference = "docstrings of the installed packages (their versions are recorded)"

    def __init__(
        self,
        packages: list[str] | None = None,
        min_documents: int = 5,
        max_document_share: float = 0.5,
        max_size: int | None = 2000,
        min_words: int = 20,
        seed: int = 0,
    ):
        check_choice(min_documents, max_document_share, max_size)
        if min_words < 1:
            raise CorpusError(f"min_words is {min_words}; it must be at least 1")
        names = [STDLIB, *filter(installed, DISTRIBUTIONS)] if packages is None else list(dict.fromkeys(packages))
        if not names:
            raise CorpusError("packages is an empty list; name at least one, for instance stdlib")
        self.name, self.labels = "docstring-documents", tuple(names)
        self.versions = {}
        modules: dict[tuple[int, str], list[str]] = {}
        for label, name in enumerate(names):
            version, found = records(name)
            self.versions["python" if name == STDLIB else DISTRIBUTIONS.get(name, name)] = version
            for record in found:
                words = modules.setdefault((label, record.module), [])
                words += content_words(record.summary) + content_words(record.paragraph)
        whole, words = bags(modules.values())
        labels = np.array([label for label, _ in modules], np.int64)
        whole = CountSplit(whole.offsets, whole.words, whole.counts, whole.vocabulary, labels)
        order = np.random.default_rng(seed).permutation(len(whole))
        share = round(SHARE * len(whole))
        rows = {"train": order[2 * share :], "valid": order[:share], "test": order[share : 2 * share]}
        splits = {name: whole.take(np.sort(chosen)) for name, chosen in rows.items()}
        table, self.vocabulary = choose_words(
            splits["train"], words, min_documents, max_document_share, max_size, self.name
        )
        recoded = {name: split.recode(table, len(self.vocabulary)) for name, split in splits.items()}
        self.fill(self.keep(recoded, min_words=min_words))
