"""Batches, vocabularies, corpora and their loading; imports nothing of pyro_nlp outside `data`."""

from pyro_nlp.data.answer_selection import TrecQA, WikiQA
from pyro_nlp.data.batches import BOS, EOS, PAD, UNK, Batch, CountBatch, PairBatch, TextBatch, VectorBatch
from pyro_nlp.data.classes import class_counts, require_classes
from pyro_nlp.data.compression import (
    CompressionCorpus,
    Summarised,
    align,
    headline_split,
    hide,
    read_headlines,
    source_split,
)
from pyro_nlp.data.compression_file import CompressionFile
from pyro_nlp.data.corpus import Corpus, CorpusError
from pyro_nlp.data.count_files import CountFile
from pyro_nlp.data.counts import CountCorpus, CountSplit, Halves
from pyro_nlp.data.docstrings import Docstrings
from pyro_nlp.data.documents import DocstringDocuments
from pyro_nlp.data.google_compression import GoogleCompression
from pyro_nlp.data.hub import HuggingFace
from pyro_nlp.data.labelled_corpora import SST, LabelledCorpus, Polarity, YelpStyle
from pyro_nlp.data.left_out import Without
from pyro_nlp.data.loading import plan, shard
from pyro_nlp.data.named_docstrings import NamedDocstrings
from pyro_nlp.data.newsgroups import TwentyNews
from pyro_nlp.data.one_side import OneSide
from pyro_nlp.data.overlap import normalised, recode, reread, without
from pyro_nlp.data.pair_corpus import Pair, PairCorpus
from pyro_nlp.data.pair_files import PairFile
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.paragraph_summaries import ParagraphSummaries
from pyro_nlp.data.parsed_trees import ParsedTrees, TreeSplit
from pyro_nlp.data.ptb import PTB
from pyro_nlp.data.splits import Split, TextSplit, VectorSplit
from pyro_nlp.data.tense import WithTense
from pyro_nlp.data.text import Sentence, TextCorpus
from pyro_nlp.data.text_documents import TextDocuments
from pyro_nlp.data.text_files import LabelledLines, TextFile
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.data.toy import Ring
from pyro_nlp.data.treebanks import Treebank
from pyro_nlp.data.trees import BracketedTrees, Constituent
from pyro_nlp.data.vectors import Vectors, read_vectors
from pyro_nlp.data.vocabulary import Vocabulary, WordList

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "PTB",
    "SST",
    "UNK",
    "Batch",
    "BracketedTrees",
    "CompressionCorpus",
    "CompressionFile",
    "Constituent",
    "Corpus",
    "CorpusError",
    "CountBatch",
    "CountCorpus",
    "CountFile",
    "CountSplit",
    "DocstringDocuments",
    "Docstrings",
    "GoogleCompression",
    "Halves",
    "HuggingFace",
    "LabelledCorpus",
    "LabelledLines",
    "NamedDocstrings",
    "OneSide",
    "Pair",
    "PairBatch",
    "PairCorpus",
    "PairFile",
    "PairSplit",
    "ParagraphSummaries",
    "ParsedTrees",
    "Polarity",
    "Ring",
    "Sentence",
    "Split",
    "Summarised",
    "TextBatch",
    "TextCorpus",
    "TextDocuments",
    "TextFile",
    "TextSplit",
    "TrecQA",
    "TreeSplit",
    "Treebank",
    "TwentyNews",
    "VectorBatch",
    "VectorSplit",
    "Vectors",
    "Vocabulary",
    "WikiQA",
    "WithTense",
    "Without",
    "WordList",
    "YelpStyle",
    "align",
    "class_counts",
    "detokenise",
    "headline_split",
    "hide",
    "normalised",
    "plan",
    "read_headlines",
    "read_vectors",
    "recode",
    "require_classes",
    "reread",
    "shard",
    "source_split",
    "without",
]
