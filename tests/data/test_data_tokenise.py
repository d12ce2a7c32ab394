import pytest

from pyro_nlp.data.tokenise import (
    choose_tokeniser,
    detokenise,
    lowered_marks,
    lowered_treebank,
    treebank,
    whitespace,
    words,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":class:`PyroModule`", "pyromodule"),
        (":py:meth:`~torch.nn.Module.forward` of it", "forward of it"),
        (":func:`!os.path.join`", "os.path.join"),
        (":ref:`the guide <user-guide>`.", "the guide ."),
        ("Use ``np.array``, please.", "use np.array , please ."),
        ("See `.Figure` and `numpy.ndarray`_.", "see figure and numpy.ndarray ."),
        ("The *first* and **second** ``*args``", "the first and second *args"),
        ("a*b*c", "a * b * c"),
        ("Pass --no-cache or **kwargs.", "pass --no-cache or **kwargs ."),
        ("Call f() or g(x).", "call f () or g ( x ) ."),
        ("It's the module's; don't", "it 's the module 's ; don't"),
        ("Non-negative, e.g. 0.5 or 10,000 or 1e-5 or 0x1F.", "non-negative , e.g. N or N or N or N ."),
        ("Returns 1 or 2 of 30 conv2d float32", "returns 1 or 2 of N conv2d float32"),
        ("x >= 0 -> y ...", "x >= 0 -> y ..."),
        ("__init__ is _private", "__init__ is _private"),
        ("see https://pyro.ai/a?b=c now", "see https://pyro.ai/a?b=c now"),
        ("An `unclosed mark", "an ` unclosed mark"),
        ("naïve Straße", "naïve straße"),
        ("<s> <pad>", "< s > < pad >"),
        ("", ""),
    ],
)
def test_code_words_stay_readable_and_punctuation_is_split_off(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected


def test_the_result_survives_a_second_pass() -> None:
    once = words("The :class:`A.b`'s value (or 2) isn't ``np.array(x)``; see --flag, *args...")
    assert words(" ".join(once)) == once


def test_whitespace_changes_nothing() -> None:
    assert whitespace(" The  N <unk>\tDon't ") == ["The", "N", "<unk>", "Don't"]
    assert choose_tokeniser("whitespace") is whitespace and choose_tokeniser("words") is words


@pytest.mark.parametrize(
    "line",
    ["return the graph, if any.", "call f() (or g).", 'the "big" one\'s x[0]', "the 'big' one: 5%", ""],
)
def test_detokenise_prints_like_text(line: str) -> None:
    assert detokenise(words(line)).replace(" [", "[") == line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How are glacier caves formed?", "How are glacier caves formed ?"),
        ('the book, "The Iron Lady: A Biography"?', "the book , `` The Iron Lady : A Biography '' ?"),
        ('He said "no." Then (slowly) left...', "He said `` no. '' Then ( slowly ) left ..."),
        ("It isn't Mr. Smith's, they'll say; I'd've gone.", "It is n't Mr. Smith 's , they 'll say ; I 'd 've gone ."),
        ("$10,000 at 8:30, 50% of U.S. sales--or not", "$ 10,000 at 8:30 , 50 % of U.S. sales -- or not"),
        ("Cannot and can't: the dogs' bowl", "Can not and ca n't : the dogs ' bowl"),
        ("o'clock in the '70s at a well-known and/or place!", "o'clock in the '70s at a well-known and/or place !"),
        ("", ""),
    ],
)
def test_treebank_words(text: str, expected: str) -> None:
    assert treebank(text) == expected.split()
    assert treebank(expected) == expected.split()


def test_a_typed_sentence_is_read_as_corpora_of_lower_cased_words_are() -> None:
    typed = "It isn't \"Mr. Smith's\", is it?"
    assert " ".join(lowered_treebank(typed)) == "it is n't `` mr. smith 's '' , is it ?"
    assert " ".join(lowered_marks(typed)) == "it isn't \" mr. smith's \" , is it ?"
    for read in (lowered_treebank, lowered_marks):
        assert read(" ".join(read(typed))) == read(typed)
