"""The compound PCFG and the neural one: what they are made of, how they learn, parse and write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp.data import EOS, PAD, ParsedTrees, TextBatch
from pyro_nlp.data.batches import BOS
from pyro_nlp.evaluation import (
    codes,
    elbo_terms,
    importance_nll,
    impute,
    left_branching,
    parses,
    perplexity,
    sample_prior,
    score_parses,
)
from pyro_nlp.evaluation.parsing_report import PLAIN
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import ELBO, IWAE, Adam, Strategy, Training, fit, terms
from pyro_nlp.models.compound_pcfg import CompoundPCFG, NeuralPCFG
from pyro_nlp.nn import LSTMEncoder
from pyro_nlp.recipe import open_run
from tests.cli.commands import CommandLine
from tests.tiny import WIDTH

LATENT = 3
encoder = partial(LSTMEncoder, embedding=WIDTH, width=WIDTH, bidirectional=True, pooling="max")
DETERMINERS, NOUNS, VERBS = ("the", "a"), ("dog", "cat", "bird"), ("sees", "hears")


def trees(count: int, seed: int) -> str:
    """Sentences of a small grammar, with their trees: determiner and noun, a verb, perhaps another of the first."""
    rng = np.random.default_rng(seed)

    def phrase() -> str:
        return f"(NP (DT {rng.choice(DETERMINERS)}) (NN {rng.choice(NOUNS)}))"

    def sentence() -> str:
        verb = f"(VBZ {rng.choice(VERBS)})"
        return f"(S {phrase()} (VP {verb} {phrase()}) (. .))" if rng.random() < 0.6 else f"(S {phrase()} {verb})"

    return "\n".join(sentence() for _ in range(count)) + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees")
    for seed, (name, count) in enumerate({"train": 120, "dev": 30, "test": 30}.items()):
        (path / f"toy.{name}.ptb").write_text(trees(count, seed), "utf-8")
    return path


@pytest.fixture(scope="module")
def corpus(folder: Path) -> ParsedTrees:
    return ParsedTrees(str(folder))


def make(corpus: ParsedTrees, compound: bool = True) -> tuple[Any, Any]:
    torch.manual_seed(0)
    size = len(corpus.vocabulary)
    if compound:
        return CompoundPCFG(size, LATENT, 3, 4, WIDTH), GaussianGuide(size, LATENT, encoder)
    return NeuralPCFG(size, 3, 4, WIDTH), None


def some(corpus: ParsedTrees, count: int = 6) -> TextBatch:
    return corpus.test.batch(np.arange(count))


def test_rules_roots_and_words_are_made_of_the_symbol_and_the_code_as_in_the_paper(corpus: ParsedTrees) -> None:
    model, _ = make(corpus)
    z, batch = torch.randn(6, LATENT), some(corpus)
    grammar = model.sentences(z, batch.mask[:, 1:])
    layer = torch.cat([model.rules.weight, model.rules_of_code.weight], 1)  # one layer over both, as they have it

    def network(part: Any, symbols: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        both = torch.cat([symbols, code.expand(len(symbols), -1)], 1)
        h = both @ torch.cat([part.symbol.weight, part.code.weight], 1).t() + part.symbol.bias
        for first, second in ((part.layers[0], part.layers[1]), (part.layers[2], part.layers[3])):
            h = second(first(h).relu()).relu() + h
        return h

    for i in range(6):
        pairs = torch.cat([model.nonterminal_symbols, z[i].expand(3, -1)], 1)
        rules = pairs @ layer.t() + model.rules.bias
        torch.testing.assert_close(grammar.rules + grammar.shift[i], rules, rtol=1e-5, atol=1e-5)
        words = network(model.words, model.preterminal_symbols, z[i])
        torch.testing.assert_close(grammar.emissions.states[i], words, rtol=1e-5, atol=1e-5)
        root = model.root_head(network(model.root, model.root_symbol, z[i]))[0]
        torch.testing.assert_close(grammar.root[i], root, rtol=1e-5, atol=1e-5)


def test_the_end_of_a_sentence_has_no_probability_but_perplexity_counts_it(corpus: ParsedTrees) -> None:
    model, _ = make(corpus, compound=False)
    with torch.no_grad():
        words = model.sentences(None, torch.ones(1, 2, dtype=torch.bool)).log_lengths(60).exp().sum()
        every = torch.cartesian_prod(*[torch.arange(len(corpus.vocabulary))] * 2)
        two = model.sentences(None, torch.ones(len(every), 2, dtype=torch.bool)).log_prob(every).exp().sum()
        torch.testing.assert_close(
            two, model.sentences(None, torch.ones(1, 2, dtype=torch.bool)).log_lengths(2)[0, 1].exp()
        )
    assert 0.5 < words <= 1.00001  # a sum over lengths, without a factor for an end
    found = importance_nll(model, None, corpus.test)
    assert found.samples == 0
    (log_p,) = terms(model, None, corpus.test.batch(np.arange(len(corpus.test)))).log_likelihood
    np.testing.assert_allclose(found.nll, -log_p.detach().numpy(), rtol=1e-5)
    assert perplexity(found.nll, corpus.test.tokens) == pytest.approx(
        np.exp(found.nll.sum() / (len(corpus.test.flat) + len(corpus.test)))
    )


@pytest.mark.parametrize(("compound", "bound"), [(True, ELBO()), (True, IWAE(3)), (False, ELBO())])
def test_the_likelihood_rises_with_training(corpus: ParsedTrees, compound: bool, bound: Any) -> None:
    model, guide = make(corpus, compound)
    before = importance_nll(model, guide, corpus.valid, 50).mean
    training = Training(epochs=6, batch_size=8, device="cpu", optimizer=Adam(0.02), clip=3.0)
    fit(model, guide, corpus, replace(Strategy(), bound=bound), training)
    likelihood = importance_nll(model, guide, corpus.valid, 50)
    assert likelihood.mean < 0.8 * before
    # A sentence is one or two of determiner and noun, and a verb; no model does better than what it was drawn from.
    entropy = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4)) + 1.6 * np.log(6) + np.log(2)
    assert likelihood.mean > entropy - 4 * likelihood.mean_standard_error
    if compound:
        found = elbo_terms(model, guide, corpus.valid, samples=20)
        assert set(found.kl) == {"z"} and (found.kl["z"] > 0).all()
        difference = likelihood.nll + found.elbo  # the bound is below the likelihood
        assert difference.mean() < 4 * difference.std(ddof=1) / np.sqrt(len(difference))


def test_a_planted_grammar_is_found(corpus: ParsedTrees) -> None:
    model, _ = make(corpus, compound=False)
    training = Training(epochs=15, batch_size=8, device="cpu", optimizer=Adam(0.02), plateau=None)
    fit(model, None, corpus, None, training)
    found = parses(model, None, corpus.test)
    phrases = [
        (start, end) in {span[:2] for span in tree}
        for tree, gold in zip(found, corpus.test.gold, strict=True)
        for start, end, label in gold
        if label == "NP"
    ]
    assert np.mean(phrases) > 0.9  # determiner and noun belong together: words say so, in any grammar of few symbols


def test_trees_are_of_the_posterior_mean_and_cover_the_words(corpus: ParsedTrees) -> None:
    model, guide = make(corpus)
    batch = some(corpus)
    z = codes(model, guide, batch)["z"]
    trees, log_p = model.parse(batch, z)
    one_by_one = parses(model, guide, corpus.test, batch_size=4)
    given_z = model.sentences(z, batch.mask[:, 1:]).log_prob(batch.targets[:, :-1])
    assert (log_p <= given_z + 1e-5).all()
    for tree, again, length in zip(trees, one_by_one, (batch.lengths - 1).tolist(), strict=False):
        assert len(tree) == 2 * length - 1 and tree[0][:2] == (0, length)
        assert tree == again
    with pytest.raises(ValueError, match=r"CompoundPCFG.parse: give z, the mean of q\(z \| x\): codes"):
        model.parse(batch)


def test_sentences_end_within_the_limit_and_depend_on_the_code(corpus: ParsedTrees) -> None:
    model, _ = make(corpus)
    torch.nn.init.normal_(model.rules_of_code.weight, std=3.0)
    z = torch.randn(5, LATENT)
    for method in ("ancestral", "greedy", "beam"):
        written = model.generate({"z": z}, method=method, max_length=7)
        assert written.shape == (5, 7)
        for row in written.tolist():
            end = row.index(EOS)
            assert end >= 2 and not {PAD, BOS, EOS} & set(row[:end]) and set(row[end + 1 :]) <= {PAD}
    likeliest = [model.generate({"z": z}, method=how) for how in ("greedy", "beam")]
    assert torch.equal(*likeliest)
    assert torch.equal(likeliest[0], model.generate({"z": z}, temperature=0.0))
    assert sample_prior(model, corpus.test, 4, max_length=6).shape == (4, 6)
    with pytest.raises(ValueError, match="max_length is 2; two words and their end are the least"):
        model.generate({"z": z}, max_length=2)


def test_blanks_are_filled_and_the_other_words_kept(corpus: ParsedTrees) -> None:
    for compound in (True, False):
        model, guide = make(corpus, compound)
        the, dog, sees = corpus.vocabulary.encode(["the", "dog", "sees"]).tolist()
        filled = impute(model, guide, [[the, -1, sees], [the, dog]])
        assert filled[1] == [the, dog] and filled[0][0::2] == [the, sees] and filled[0][1] >= 3


def test_a_sentence_of_one_word_is_an_error_or_has_a_probability(corpus: ParsedTrees) -> None:
    batch = some(corpus, 2)
    short = batch.replace(mask=torch.arange(batch.mask.shape[1]) < torch.tensor([[2], [4]]))
    model, _ = make(corpus, compound=False)
    with pytest.raises(ValueError, match=r"sentence 0 of the batch has 1 words.*single_words of the model"):
        terms(model, None, short)
    alone = NeuralPCFG(len(corpus.vocabulary), 3, 4, WIDTH, single_words=True)
    assert terms(alone, None, short).log_likelihood.isfinite().all()


def test_a_grammar_without_symbols_or_without_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match="CompoundPCFG: latent is 0; a grammar without z and guide is NeuralPCFG"):
        CompoundPCFG(WIDTH, 0)
    with pytest.raises(ValueError, match="NeuralPCFG: preterminals is 0; there is at least one"):
        NeuralPCFG(WIDTH, preterminals=0)


@pytest.fixture(scope="module")
def cli() -> Iterator[CommandLine]:
    command_line = CommandLine()
    yield command_line
    command_line.close()


@pytest.mark.parametrize("name", ["compound_pcfg", "neural_pcfg"])
def test_the_recipe_checks_trains_evaluates_and_writes(name: str, folder: Path, cli: CommandLine) -> None:
    sizes = ["--model.nonterminals=3", "--model.preterminals=4", "--model.width=8", "--training.epochs=2"]
    sizes += ["--corpus=ParsedTrees", f"--corpus.path={folder}"]
    if name == "compound_pcfg":
        sizes += ["--model.latent=2", "--guide.encoder.embedding=8", "--guide.encoder.width=8"]
    assert "PCFG" in cli("check", name, *sizes, cwd=folder).worked()
    cli("train", name, *sizes, "--out", name, cwd=folder).worked()
    found = json.loads(cli("evaluate", name, "--samples", "5", "--json", cwd=folder).worked())
    assert 1 < found["perplexity"] < 100 and ("z" in found["latents"]) == (name == "compound_pcfg")
    run, recipe = open_run(folder / name)
    split: Any = recipe.corpus.test
    lengths = (split.lengths - 1).tolist()
    trees = found["trees"]
    assert trees["grammar"]["f1"] == score_parses(parses(run.model, run.guide, split), split.gold, lengths).f1
    assert trees["left branching"]["f1"] == score_parses([left_branching(n) for n in lengths], split.gold, lengths).f1
    assert trees["best binary trees"]["f1"] >= max(trees[plain]["f1"] for plain in PLAIN)
    printed = cli("evaluate", name, "--samples", "5", cwd=folder).worked()
    assert all(f"sentence F1 of {plain}" in printed for plain in PLAIN) and "over right branching" in printed
    written = json.loads(cli("generate", name, "--json", cwd=folder).worked())
    assert len(written["samples"]) == 5 and all(len(line.split()) >= 2 for line in written["samples"])
