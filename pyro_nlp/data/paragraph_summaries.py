"""The built-in corpus as pairs: the first paragraph of a docstring and its summary line (layer: data)."""

from __future__ import annotations

from collections.abc import Iterator

from pyro_nlp.data.bags import content_words
from pyro_nlp.data.compression import Compressed, CompressionCorpus
from pyro_nlp.data.docstring_records import DISTRIBUTIONS, STDLIB, installed, records
from pyro_nlp.data.docstrings import SHORTEST
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.text import check_limits, cut
from pyro_nlp.data.tokenise import words


class ParagraphSummaries(CompressionCorpus):
    """The first paragraph of prose after a docstring's summary line as source, the summary line as its compression.

    On every machine that runs this package, for trying things out. The summary line is not written from the paragraph:
    about half its words are there, and 1 % of the pairs are extractive; as Rush et al. 2015 (arXiv:1509.00685) do with
    headlines, pairs that share no content word are left out. Of pairs with equal summaries or equal paragraphs the
    first is kept, and a module is in train, valid or test (80 / 10 / 10) by a hash of its name.

    Args:
        packages: import names, or "stdlib"; None for the standard library and those of torch, numpy, scipy,
            pandas, matplotlib, sympy, networkx, xarray, arviz and pyro that are installed.
        labelled: share of the training summaries that are known, 0 to 1; the others are marked in `train.labels`.
        min_count: words seen less often in train become `<unk>`.
        max_source: pairs with a longer paragraph, in words, are left out.
        max_length: pairs with a longer summary line, in words, are left out.
        shared: different content words that paragraph and summary line need to have in common.
        seed: of the choice of the summaries that are known.

    Attributes:
        longer: pairs left out as the summary line has more words than the paragraph.
        unrelated: pairs left out as they share too few content words.
    """

    reference = "docstrings of the installed packages (their versions are recorded)"

    def __init__(
        self,
        packages: list[str] | None = None,
        labelled: float = 1.0,
        min_count: int = 3,
        max_source: int = 60,
        max_length: int = 30,
        shared: int = 1,
        seed: int = 0,
    ):
        check_limits(min_count, None, max_length)
        if shared < 0:
            raise CorpusError(f"shared is {shared}; it must be at least 0, which keeps unrelated pairs")
        names = [STDLIB, *filter(installed, DISTRIBUTIONS)] if packages is None else list(dict.fromkeys(packages))
        if not names:
            raise CorpusError("packages is an empty list; name at least one, for instance stdlib")
        self.name = "paragraph-summaries"
        self.versions = {}
        self.unrelated = 0
        self.fill(
            self._pairs(names, shared),
            labelled=labelled,
            seed=seed,
            min_count=min_count,
            max_source=max_source,
            max_length=max_length,
            overlong="drop",
        )

    def _pairs(self, names: list[str], shared: int) -> Iterator[Compressed]:
        summaries: set[tuple[str, ...]] = set()
        paragraphs: set[tuple[str, ...]] = set()
        for package in names:
            version, found = records(package)
            self.versions["python" if package == STDLIB else DISTRIBUTIONS.get(package, package)] = version
            for record in found:
                summary, paragraph = tuple(words(record.summary)), tuple(words(record.paragraph))
                if any(sum(word[0].isalpha() for word in text) < SHORTEST for text in (summary, paragraph)):
                    continue
                if summary in summaries or paragraph in paragraphs:
                    continue
                summaries.add(summary)
                paragraphs.add(paragraph)
                if len({*content_words(record.summary)} & {*content_words(record.paragraph)}) < shared:
                    self.unrelated += 1
                    continue
                where = f"{record.module}.{record.name}".rstrip(".")
                yield Compressed(record.paragraph, record.summary, cut([record.module]), where)
