"""Published corpora of questions and candidate answers: WikiQA and TREC QA (layer: data)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.pair_corpus import Pair, PairCorpus
from pyro_nlp.data.text import Overlong
from pyro_nlp.data.tokenise import lowered, treebank, whitespace

_LABELS = {"0": 0, "1": 1}
_BRACKETS = dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True))


class WikiQA(PairCorpus):
    """Questions asked of a search engine, and the sentences of a Wikipedia page as candidates.

    20,360 / 2,733 / 6,165 pairs of 2,118 / 296 / 633 questions, of which 873 / 126 / 243 have a right answer
    (`split.answered`). All are kept: judging only those, as is usual, is up to the evaluation. Of the 126 and 243, 4
    and 6 have no wrong answer, and the `-filtered.ref` files (122 and 237) leave these out too: say which are judged.
    A question is told from others by its number in the judgements (`.ref`), which are read beside the text and have to
    agree with it.

    Args:
        path: folder with WikiQA-{train,dev,test}.txt and .ref; None looks for `wikiqa` in the working directory and
            in PYRO_NLP_DATA.
        lowercase: lower-case both texts.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound.
        max_length: bound on the words of a candidate; None for no bound. 26 candidates have more than 100.
        overlong: what to do with a longer candidate.
    """

    reference = "Yang et al. 2015, WikiQA: A Challenge Dataset for Open-Domain Question Answering"

    def __init__(
        self,
        path: str | None = None,
        lowercase: bool = True,
        min_count: int = 2,
        max_size: int | None = None,
        max_length: int | None = 100,
        overlong: Overlong = "truncate",
    ):
        folder = _folder(path or "wikiqa")
        self.name = "wikiqa"
        split = lowered if lowercase else whitespace
        self.tokenise = _lowered_treebank if lowercase else treebank
        files = [folder / f"WikiQA-{name}" for name in ("train", "dev", "test")]
        self.build(
            (pair for i, stem in enumerate(files) for pair in self._pairs(stem, i, split)),
            min_count=min_count,
            max_size=max_size,
            max_length=max_length,
            overlong=overlong,
            labelled=True,
            where=str(folder),
        )

    def _pairs(self, stem: Path, part: int, split: Callable[[str], list[str]]) -> Iterator[Pair]:
        text, qrels = stem.with_name(f"{stem.name}.txt"), stem.with_name(f"{stem.name}.ref")
        before = ("", "")
        for line, (question, answer, label), judged in _aligned(text, qrels):
            place = f"{text}: line {line}"
            group, expected = judged[0], judged[3]
            if label not in _LABELS:
                raise CorpusError(f"{place} has the label {label!r}; it must be 0 or 1")
            if label != expected:
                raise CorpusError(
                    f"{place} has the label {label}, and {qrels.name} has {expected}; take both files from one release"
                )
            if not question.strip():
                raise CorpusError(f"{place} has no question; take the line out of {text.name} and of {qrels.name}")
            if not answer.strip():
                raise CorpusError(
                    f"{place}: question {group} has an empty candidate; a question without candidates cannot be "
                    f"ranked: take the line out of {text.name} and of {qrels.name}"
                )
            if (question == before[1]) != (group == before[0]):
                changed = "the question number changes and its text does not"
                if group == before[0]:
                    changed = "the text of the question changes and its number does not"
                raise CorpusError(f"{place}: {changed} ({qrels.name}: {group}); take both files from one release")
            before = (group, question)
            yield Pair(split(question), split(answer), part, group, _LABELS[label], str(text), line)


class TrecQA(PairCorpus):
    """Questions of the TREC QA track, and sentences of newspapers as candidates (QASent).

    "train" has 4,718 pairs, judged by hand; "train-all" 53,417, judged by whether an answer's pattern occurs. "raw" has
    1,148 and 1,517 pairs for choosing and for judging, and "clean" 1,117 and 1,442, without the questions that have no
    right or no wrong answer: results on the two are not comparable. The files hold 93 questions in "train", and 81 and
    95 in "raw", where 94, 82 and 100 are usually stated: a question without candidates has no line.

    In the sets for choosing and judging the right answers of a question stand before the wrong ones. Candidates of
    equal score must not be ranked by their order: a constant would be right about everything.

    Args:
        path: folder with a folder per set, each of a.toks, b.toks, sim.txt and id.txt; None looks for `trecqa` in
            the working directory and in PYRO_NLP_DATA.
        train: which questions to train on.
        test: which questions to choose and to judge on.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound.
        max_length: bound on the words of a candidate; None for no bound. 55 candidates of train-all have more than 100.
        overlong: what to do with a longer candidate.
    """

    reference = "Wang et al. 2007, What is the Jeopardy Model?; train-all and the clean sets as in Yao et al. 2013"

    def __init__(
        self,
        path: str | None = None,
        train: Literal["train", "train-all"] = "train-all",
        test: Literal["raw", "clean"] = "raw",
        min_count: int = 2,
        max_size: int | None = None,
        max_length: int | None = 100,
        overlong: Overlong = "truncate",
    ):
        for name, given, known in (("train", train, ("train", "train-all")), ("test", test, ("raw", "clean"))):
            if given not in known:
                raise CorpusError(f"{name} is {given!r}; give {' or '.join(known)}")
        folder = _folder(path or "trecqa")
        self.name = f"trecqa-{test}"
        self.tokenise = _with_brackets
        sets = [folder / train, folder / f"{test}-dev", folder / f"{test}-test"]
        self.build(
            (pair for split, part in enumerate(sets) for pair in _sides(part, split)),
            min_count=min_count,
            max_size=max_size,
            max_length=max_length,
            overlong=overlong,
            labelled=True,
            where=str(folder),
        )


def _lowered_treebank(text: str) -> list[str]:
    return treebank(text.lower())


def _with_brackets(text: str) -> list[str]:
    """Lower-cased words, brackets by their names."""
    return [_BRACKETS.get(word, word) for word in _lowered_treebank(text)]


def _folder(path: str) -> Path:
    folder = locate(path)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: is a file; give the folder that holds the files of the corpus")
    return folder


def _aligned(text: Path, qrels: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Line number, the three fields of the text and the four of the judgements."""
    for line, (read, judged) in enumerate(zip_longest(read_lines(text), read_lines(qrels)), 1):
        if read is None or judged is None:
            short, long = (text, qrels) if read is None else (qrels, text)
            what = "judges a candidate that is not" if read is None else "has a candidate that is not judged"
            raise CorpusError(
                f"{long}: line {line} {what} in {short.name}, which has {line - 1} lines; take both files "
                f"from one release (not the -filtered.ref)"
            )
        fields, marks = read[1].split("\t"), judged[1].split()
        if len(fields) != 3:
            raise CorpusError(
                f"{text}: line {line} has {len(fields)} fields; it should be question, sentence and label with tabs "
                f"between them"
            )
        if len(marks) != 4:
            raise CorpusError(
                f"{qrels}: line {line} has {len(marks)} fields; it should be question, 0, candidate and label"
            )
        yield line, fields, marks


def _sides(part: Path, split: int) -> Iterator[Pair]:
    """The pairs of a folder of four files that are aligned line by line."""
    files = [part / name for name in ("a.toks", "b.toks", "sim.txt", "id.txt")]
    for line, read in enumerate(zip_longest(*map(read_lines, files)), 1):
        for file, found in zip(files, read, strict=True):
            if found is None:
                raise CorpusError(
                    f"{file}: has {line - 1} lines, fewer than the files beside it; take all four of one release"
                )
        question, answer, label, group = (text for _, text in read)
        if label.strip() not in _LABELS:
            raise CorpusError(f"{files[2]}: line {line} has the label {label[:20]!r}; it must be 0 or 1")
        for file, text in ((files[0], question), (files[1], answer), (files[3], group)):
            if not text.strip():
                raise CorpusError(f"{file}: line {line} is empty; take it out of all four files")
        yield Pair(
            lowered(question), lowered(answer), split, group.strip(), _LABELS[label.strip()], str(files[0]), line
        )
