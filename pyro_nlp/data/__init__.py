"""Batches, vocabularies, corpora and their loading; imports nothing of pyro_nlp outside `data`."""

from pyro_nlp.data.batches import BOS, EOS, PAD, UNK, Batch, CountBatch, TextBatch, VectorBatch
from pyro_nlp.data.corpus import Corpus, CorpusError
from pyro_nlp.data.count_files import CountFile
from pyro_nlp.data.counts import CountCorpus, CountSplit, Halves
from pyro_nlp.data.docstrings import Docstrings
from pyro_nlp.data.documents import DocstringDocuments
from pyro_nlp.data.hub import HuggingFace
from pyro_nlp.data.loading import plan, shard
from pyro_nlp.data.newsgroups import TwentyNews
from pyro_nlp.data.ptb import PTB
from pyro_nlp.data.splits import Split, TextSplit, VectorSplit
from pyro_nlp.data.text import Sentence, TextCorpus
from pyro_nlp.data.text_files import LabelledLines, TextFile
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.data.toy import Ring
from pyro_nlp.data.treebanks import Treebank
from pyro_nlp.data.trees import BracketedTrees
from pyro_nlp.data.vocabulary import Vocabulary, WordList

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "PTB",
    "UNK",
    "Batch",
    "BracketedTrees",
    "Corpus",
    "CorpusError",
    "CountBatch",
    "CountCorpus",
    "CountFile",
    "CountSplit",
    "DocstringDocuments",
    "Docstrings",
    "Halves",
    "HuggingFace",
    "LabelledLines",
    "Ring",
    "Sentence",
    "Split",
    "TextBatch",
    "TextCorpus",
    "TextFile",
    "TextSplit",
    "Treebank",
    "TwentyNews",
    "VectorBatch",
    "VectorSplit",
    "Vocabulary",
    "WordList",
    "detokenise",
    "plan",
    "shard",
]
