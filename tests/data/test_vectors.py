"""Word vectors from a file: which word takes which, what is wrong with a file, and a model that starts from them."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from pyro_nlp.data import CorpusError, Vocabulary, WordList, read_vectors
from pyro_nlp.nn.words import use_vectors, word_vectors

Write = Callable[[str, str | bytes], Path]

VOCABULARY = Vocabulary(["the", "Paris", "NATO", "unseen", "café"])
GLOVE = "the 1 2 3\nparis 4 5 6\nParis 7 8 9\nnato -1 -2e-1 .5\ncafé 0 0 1\nother 1 1 1\n<unk> 9 9 9\n</s> 9 9 9\n"


def test_words_are_matched_as_they_are_and_then_in_lower_case(write: Write) -> None:
    vectors = read_vectors(write("v.txt", GLOVE), VOCABULARY)
    assert vectors.table.dtype == torch.float32 and vectors.table.shape == (9, 3) and vectors.width == 3
    # the special symbols keep no vector: a file's `</s>` ends other texts than ours
    assert vectors.known.tolist() == [False] * 4 + [True, True, True, False, True]
    assert vectors.table[4:7].tolist() == [[1, 2, 3], [7, 8, 9], pytest.approx([-1, -0.2, 0.5])]
    assert not vectors.table[~vectors.known].any() and vectors.types == pytest.approx(4 / 5)
    lower = read_vectors(write("u.txt", "PARIS 1 1\nparis 2 2\n"), Vocabulary(["Paris", "paris"]))
    assert lower.table[4:].tolist() == [[2, 2], [2, 2]]
    upper = read_vectors(write("w.txt", "PARIS 1 1\nParis 2 2\n"), Vocabulary(["paris"]))
    assert upper.table[4].tolist() == [1, 1]


def test_a_header_and_gzip_and_windows_line_ends_change_nothing(write: Write) -> None:
    plain = read_vectors(write("v.txt", GLOVE), VOCABULARY)
    headed = "8 3\n" + GLOVE
    for path in (
        write("h.txt", headed),
        write("r.txt", headed.replace("\n", "\r\n")),
        write("s.txt", GLOVE.replace("\n", " \n") + "\n"),
        write("e.txt", headed.removesuffix("\n")),
        write("z.txt.gz", gzip.compress(headed.encode())),
    ):
        found = read_vectors(str(path), VOCABULARY)
        assert torch.equal(found.table, plain.table) and torch.equal(found.known, plain.known)


def test_keys_of_several_words_and_a_word_given_twice_do_not_disturb(write: Write) -> None:
    text = "the 1 2\nthe 3 4\n. . . 5 6\nParis 7 8\nat name@domain.com 0 0\n"
    vectors = read_vectors(write("v.txt", text), VOCABULARY)
    assert vectors.table[4:6].tolist() == [[1, 2], [7, 8]] and int(vectors.known.sum()) == 2


def test_coverage_counts_types_and_tokens(write: Write) -> None:
    path = write("v.txt", GLOVE)
    counts = {"the": 70, "unseen": 10, "not in the vocabulary": 20}
    vectors = read_vectors(path, VOCABULARY, counts)
    assert vectors.tokens == pytest.approx(0.7)
    assert str(vectors) == "vectors of width 3 for 4 words, 80.0%, 70.0% of their occurrences"
    by_id = torch.tensor([5, 5, 5, 5, 70, 0, 0, 30, 0])
    assert read_vectors(path, VOCABULARY, by_id).tokens == pytest.approx(0.7)
    assert read_vectors(path, VOCABULARY).tokens is None
    with pytest.raises(ValueError, match="3 counts for a vocabulary of 9"):
        read_vectors(path, VOCABULARY, torch.ones(3))


def test_a_word_list_has_no_special_symbols(write: Write) -> None:
    vectors = read_vectors(write("v.txt", GLOVE), WordList(["<unk>", "the"]))
    assert vectors.known.tolist() == [True, True] and vectors.types == 1


BAD: dict[str, tuple[str | bytes, str]] = {
    "width differs": ("the 1 2 3\na 1 2\nb 1 2 3\n", "line 2 has 2 numbers, those before it say 3; get the file again"),
    "too many": ("the 1 2\na 1 2 3\n", "line 2 has 3 numbers, those before it say 2"),
    "width of the header": ("1 3\nthe 1 2\n", "line 2 has 2 numbers, those before it say 3"),
    "last line cut": ("the 1 2 3\na 1 2", "line 2 has 2 numbers.*the file was cut short"),
    "fewer lines": ("3 2\nthe 1 2\na 1 2\n", "the first line says 3 words, and 2 are there; the file was cut short"),
    "more lines": ("1 2\nthe 1 2\na 1 2\n", "the first line says 1 words, and 2 are there"),
    "no number": ("the 1 x 3\n", r"line 1 \('the'\) has something that is no number"),
    "not finite": ("the 1 nan 3\n", r"line 1 \('the'\) has a number that is not finite"),
    "no word": ("der 1 2\nund 3 4\n", r"none of its 2 words is in the vocabulary \(the, Paris, NATO, \.\.\.\)"),
    "header alone": ("0 5\n", "none of its 0 words is in the vocabulary"),
    "empty": ("", "the file is empty"),
    "prose": ("the\nend\n", "line 1 is not a word and its numbers"),
    "binary": (b"2 3\nthe \0\0\x80?\0\0\0@\0\0@@\n", "give the text format"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_ends_in_one_line(name: str, write: Write) -> None:
    content, message = BAD[name]
    with pytest.raises(CorpusError, match=rf"bad\.txt: .*{message}") as error:
        read_vectors(write("bad.txt", content), VOCABULARY)
    assert "\n" not in str(error.value)


def test_a_damaged_archive_ends_in_one_line(write: Write, tmp_path: Path) -> None:
    whole = gzip.compress(GLOVE.encode() * 50)
    for content, message in (
        (whole[:-20], "was cut short"),
        (b"the 1 2\n", "is not a whole gzip file"),
        (whole[:20] + b"xxxx" + whole[24:], "is not a whole gzip file|cut short|numbers"),
    ):
        with pytest.raises(CorpusError, match=message):
            read_vectors(write("v.txt.gz", content), VOCABULARY)
    with pytest.raises(CorpusError, match="no such file"):
        read_vectors(tmp_path / "none.txt", VOCABULARY)


class Reader(nn.Module):
    """Two embeddings of words and something else."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.questions, self.answers = word_vectors(9, width), word_vectors(9, width)
        self.tags = nn.Embedding(5, width)
        self.out = nn.Linear(width, 9)


def test_every_embedding_of_the_shape_starts_from_the_vectors_and_the_rest_stays(write: Write) -> None:
    vectors = read_vectors(write("v.txt", GLOVE), VOCABULARY)
    model = Reader()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert use_vectors(model, vectors) == ["questions", "answers"]
    for table in (model.questions, model.answers):
        assert torch.equal(table.weight[vectors.known], vectors.table[vectors.known])
        assert table.weight.requires_grad and table.weight.is_leaf
    assert torch.equal(model.questions.weight[~vectors.known], before["questions.weight"][~vectors.known])
    assert torch.equal(model.out.weight, before["out.weight"]) and torch.equal(model.tags.weight, before["tags.weight"])
    single = nn.Embedding(9, 3, dtype=torch.float64)
    assert use_vectors(single, vectors) == [""] and single.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            Reader(7),
            r"no embedding of Reader is \[9, 3\] \(found questions \[9, 7\], answers \[9, 7\], tags \[5, 7\]\); the "
            r"vectors are 3 wide and the model's 7: make them equal",
        ),
        (nn.Embedding(8, 3), r"found itself \[8, 3\]\); read the vectors with the vocabulary of the model's corpus"),
        (nn.Linear(3, 9), r"found none\); give a model that reads words"),
    ],
)
def test_a_model_without_such_an_embedding_is_told_the_shapes(module: nn.Module, message: str, write: Write) -> None:
    vectors = read_vectors(write("v.txt", GLOVE), VOCABULARY)
    with pytest.raises(ValueError, match=message):
        use_vectors(module, vectors)
