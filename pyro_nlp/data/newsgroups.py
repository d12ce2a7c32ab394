"""20 Newsgroups as bags of words, in the two preparations of the topic models' papers (layer: data)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.files import CorpusError, locate
from pyro_nlp.data.sparse import read_counts, read_words

Preparation = Literal["nvdm", "prodlda"]

_REFERENCES = {
    "nvdm": "20 Newsgroups as in Miao et al. 2016, Neural variational inference for text processing",
    "prodlda": "20 Newsgroups as in Srivastava and Sutton 2017, Autoencoding variational inference for topic models",
}

GROUPS = (
    "alt.atheism",
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
    "soc.religion.christian",
    "talk.politics.guns",
    "talk.politics.mideast",
    "talk.politics.misc",
    "talk.religion.misc",
)
"""The newsgroups in the order of the labels 1 to 20 of NVDM's files."""


class TwentyNews(CountCorpus):
    """Posts to 20 newsgroups: 11,268 to train and validate on and 7,505 to test on (nvdm), or 11,258 and 7,487.

    Validation documents are cut from the training documents at random, never from the test documents: NVDM's own
    development set is the first 50 *test* documents, so that what is chosen on it has seen the test set.

    The files of nvdm hold 2,000 words and the class of each post. Those of prodlda hold 1,995 words, no classes, and
    on each side one post without any word, which is left out with a warning (`dropped_by_split`).

    Args:
        preparation: whose choice of posts and words.
        path: folder with train.feat, test.feat and vocab.new; None looks for `20news_nvdm` or `20news_prodlda` in the
            working directory and in PYRO_NLP_DATA.
        valid: how many training documents to validate on.
        seed: of the choice of these.
    """

    def __init__(self, preparation: Preparation = "nvdm", path: str | None = None, valid: int = 500, seed: int = 0):
        if preparation not in get_args(Preparation):
            raise CorpusError(f"preparation {preparation!r} is unknown; give {' or '.join(get_args(Preparation))}")
        folder = locate(path or f"20news_{preparation}")
        self.name = f"20news-{preparation}"
        self.reference = _REFERENCES[preparation]
        words_file = folder / "vocab.new"
        self.vocabulary = read_words(words_file)
        field: Literal["label", "ignored"] = "label" if preparation == "nvdm" else "ignored"
        splits, places = {}, {}
        for name in ("train", "test"):
            file = folder / f"{name}.feat"
            found = read_counts([file], self.vocabulary, str(words_file), first_field=field)
            splits[name], places[name] = found.split, found.places
            if preparation == "nvdm":
                self.labels = GROUPS
                splits[name] = _labelled(found.split, found.classes, found.places)
        kept = self.keep(splits, places)
        size = len(kept["train"])
        if not 0 < valid < size:
            raise CorpusError(
                f"valid is {valid}; of the {size:,} training documents of {folder}, give 1 to {size - 1:,}"
            )
        order = np.random.default_rng(seed).permutation(size)
        train, chosen = np.sort(order[valid:]), np.sort(order[:valid])
        self.fill(
            {"train": kept["train"].take(train), "valid": kept["train"].take(chosen), "test": kept["test"]}, str(folder)
        )


def _labelled(split: CountSplit, classes: list[str | None], places: list[str]) -> CountSplit:
    """The split with classes 1 to 20 as labels 0 to 19."""
    ids = {str(i + 1): i for i in range(len(GROUPS))}
    labels = np.zeros(len(split), np.int64)
    for row, name in enumerate(classes):
        if name not in ids:
            raise CorpusError(
                f"{places[row]} has the label {name!r}, and these are 1 to {len(GROUPS)}; restore the file, or give "
                "--corpus.preparation prodlda if its labels mean nothing"
            )
        labels[row] = ids[name]
    return CountSplit(split.offsets, split.words, split.counts, split.vocabulary, labels)
