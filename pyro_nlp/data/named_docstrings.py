"""The built-in corpus as pairs: the name of a function and its summary line (layer: data)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from pyro_nlp.data.docstring_records import DISTRIBUTIONS, STDLIB, installed, records
from pyro_nlp.data.docstrings import SHORTEST
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.pair_corpus import RIGHT, WRONG, Pair, PairCorpus
from pyro_nlp.data.text import check_limits, cut
from pyro_nlp.data.tokenise import words

OTHERS = 2
"""Wrong answers that a question needs."""

_PART = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z\d])(?=[A-Z][a-z])|_+")


class _Named(NamedTuple):
    name: tuple[str, ...]
    summary: tuple[str, ...]
    place: str


class NamedDocstrings(PairCorpus):
    """The words of a function's or class's name as question, its summary line as answer.

    `set_default_dtype` asks *set default dtype*, and *sets the default floating point dtype ...* is right. Wrong
    answers are summaries of the same module that belong to other names, drawn by the seed; the right one stands at a
    random place among them. A summary that occurs twice is kept once, in the module that is read first, and a module
    is in train, valid or test (80 / 10 / 10) by a hash of its name: no answer, right or wrong, is on two sides.

    Args:
        packages: import names, or "stdlib"; None for the standard library and those of torch, numpy, scipy,
            pandas, matplotlib, sympy, networkx, xarray, arviz and pyro that are installed.
        candidates: bound on the answers of a question, the right one among them.
        wrong: draw wrong answers, and label the pairs. False gives the right pairs alone, without labels: sources and
            targets.
        reverse: the summary line is the first text, and the words of the name the second.
        min_count: words seen less often in train become `<unk>`.
        max_length: longer summary lines, in words, are left out.
        seed: of the wrong answers.

    Attributes:
        left_out: questions left out because their module has fewer than two other answers.
    """

    reference = "docstrings of the installed packages (their versions are recorded)"

    def __init__(
        self,
        packages: list[str] | None = None,
        candidates: int = 10,
        wrong: bool = True,
        reverse: bool = False,
        min_count: int = 3,
        max_length: int = 40,
        seed: int = 0,
    ):
        check_limits(min_count, None, max_length)
        if candidates < 2:
            raise CorpusError(f"candidates is {candidates}; it must be at least 2, a right answer and a wrong one")
        names = [STDLIB, *filter(installed, DISTRIBUTIONS)] if packages is None else list(dict.fromkeys(packages))
        if not names:
            raise CorpusError("packages is an empty list; name at least one, for instance stdlib")
        self.name = "named-docstrings"
        self.versions = {}
        self.left_out = 0
        modules, longer = self._modules(names, max_length)
        self.build(
            self._pairs(modules, candidates if wrong else 1, reverse, seed),
            min_count=min_count,
            labelled=wrong,
        )
        self.dropped = longer

    def _modules(self, names: list[str], max_length: int) -> tuple[dict[str, list[_Named]], int]:
        """What is named in each module, every summary once; how many summaries were too long."""
        modules: dict[str, list[_Named]] = {}
        seen: set[tuple[str, ...]] = set()
        longer = 0
        for package in names:
            version, found = records(package)
            self.versions["python" if package == STDLIB else DISTRIBUTIONS.get(package, package)] = version
            for record in found:
                name, summary = tuple(name_words(record.name)), tuple(words(record.summary))
                if not name or summary in seen or sum(word[0].isalpha() for word in summary) < SHORTEST:
                    continue
                seen.add(summary)
                if len(summary) > max_length:
                    longer += 1
                    continue
                module = record.module
                modules.setdefault(module, []).append(_Named(name, summary, f"{module}.{record.name}"))
        return modules, longer

    def _pairs(self, modules: dict[str, list[_Named]], candidates: int, reverse: bool, seed: int) -> Iterator[Pair]:
        for module, named in modules.items():
            split = cut([module])
            for group, right in enumerate(named):
                chosen = [right]
                if candidates > 1:
                    # two functions of one name: the answer of one is not wrong for the other
                    others = [other for other in named if other.name != right.name]
                    if reverse:
                        others = list({other.name: other for other in others}.values())
                    if len(others) < OTHERS:
                        self.left_out += 1
                        continue
                    draw = random.Random(f"{seed} {right.place}")
                    chosen += draw.sample(others, min(candidates - 1, len(others)))
                    draw.shuffle(chosen)
                first = right.summary if reverse else right.name
                for one in chosen:
                    second = one.name if reverse else one.summary
                    label = (RIGHT if one is right else WRONG) if candidates > 1 else None
                    yield Pair(first, second, split, (module, group), label, right.place)


def name_words(name: str) -> list[str]:
    """The words of the last part of a dotted name, lower-cased: `Zoo.getHTMLPage` is get, html and page."""
    parts = _PART.sub(" ", name.rpartition(".")[2]).lower().split()
    return parts if any(part[0].isalpha() for part in parts) else []
