"""The command line: one function per command (layer: cli).

Every command returns what to print; errors are one line on standard error and exit status 1, misuse is status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import yaml
from pyro import poutine
from rich.console import Console
from rich.table import Table

import pyro_nlp
from pyro_nlp import recipe as recipes
from pyro_nlp.citations import bibliography
from pyro_nlp.data.batches import TextBatch
from pyro_nlp.data.corpus import CorpusError
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.evaluation import evaluate, impute, interpolate, plots, posteriors, reconstruct, sample_prior
from pyro_nlp.inference import Interrupted, NumericalError, RunError, RunFolder, StructureError, fit
from pyro_nlp.inference.fit import Run
from pyro_nlp.nn import BLANK
from pyro_nlp.recipe_errors import RecipeError

USAGE = 2
FAILED = 1
EXPECTED = (StructureError, CorpusError, RunError, NumericalError, Interrupted, RecipeError, ValueError)

_out = Console(soft_wrap=True, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)
"""Standard output; a table that is piped keeps a row on a line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    options, overrides = _parser().parse_known_args(_joined(arguments))
    if overrides and not options.takes_recipe_options:
        _parser().error(f"unrecognized arguments: {' '.join(overrides)}")
    tune_allocator()
    try:
        options.run(options, overrides)
        sys.stdout.flush()
    except BrokenPipeError:  # of `pyro-nlp ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RecipeError as error:
        return _fail(error, str(error), USAGE, debug)
    except EXPECTED as error:
        return _fail(error, str(error), FAILED, debug)
    except KeyboardInterrupt as error:
        return _fail(error, "interrupted", FAILED, debug)
    except OSError as error:
        return _fail(error, f"{error.filename or 'output'}: {error.strerror or error}", FAILED, debug)
    except Exception as error:
        return _fail(error, _unexpected(error), FAILED, debug)
    return 0


def _fail(error: BaseException, message: str, status: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"pyro-nlp: {' '.join(message.split())}", file=sys.stderr)
    return status


def _unexpected(error: Exception) -> str:
    """What nobody foresaw, most often in a user's own class: what, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({place.filename}:{place.lineno}); --debug shows the traceback"


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--model.latent 16` as one argument, or argparse could take the value for the RECIPE."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name = argument.removeprefix("--")
        value_follows = bool(rest) and not rest[0].startswith("--")
        if name != argument and "=" not in name and ("." in name or name in recipes.SECTIONS) and value_follows:
            argument = f"{argument}={rest.pop(0)}"
        joined.append(argument)
    return joined


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"pyro-nlp: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    main_parser = _Parser(
        prog="pyro-nlp",
        description="Latent-variable models of text on Pyro: one model, any inference, one evaluation.",
        epilog="RECIPE: the name of a shipped recipe (see `pyro-nlp list`) or a YAML file. --debug shows tracebacks.",
        allow_abbrev=False,
    )
    main_parser.add_argument("--version", action="version", version=pyro_nlp.__version__)
    commands = main_parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[..., None], help: str, recipe_options: bool = False
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.set_defaults(run=run, takes_recipe_options=recipe_options)
        if recipe_options:
            made.epilog = (
                "Any value of the recipe can be set: --model.latent 16 --training.epochs 5 --corpus.path my.txt. "
                "--print_config prints the result."
            )
            made.add_argument("recipe", metavar="RECIPE", nargs="?" if name == "train" else None)
            made.add_argument("--print_config", action="store_true", help="print the recipe with all values and stop")
        return made

    command("list", list_zoo, "what the zoo holds, with references")
    command("check", check, "the variables of a model, and how each is treated", recipe_options=True)
    train_parser = command("train", train, "train a recipe into a run folder", recipe_options=True)
    train_parser.add_argument("--out", help="run folder; by default runs/NAME")
    train_parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    evaluation = command("evaluate", evaluate_run, "judge a run on its corpus")
    evaluation.add_argument("run_folder", metavar="RUN")
    evaluation.add_argument("--samples", type=_positive, default=500, help="importance samples per document")
    evaluation.add_argument("--split", choices=("train", "valid", "test"), default="test")
    evaluation.add_argument("--precision", choices=("float32", "bf16", "auto"), default="float32")
    evaluation.add_argument("--seed", type=int, default=0)
    evaluation.add_argument("--json", action="store_true", help="print JSON")
    _generate_options(command("generate", generate, "samples, reconstructions, interpolations, filled blanks"))
    command("cite", cite, "BibTeX of what a recipe or run uses", recipe_options=True)
    return main_parser


def _generate_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("run_folder", metavar="RUN")
    made.add_argument(
        "--what",
        choices=("samples", "reconstructions", "interpolations", "imputations"),
        help="by default samples, reconstructions and interpolations",
    )
    made.add_argument(
        "--sentence",
        action="append",
        default=[],
        metavar="TEXT",
        help="in place of test sentences; `_` is a blank for imputations; repeat it",
    )
    made.add_argument("--count", type=_positive, default=5, help="how many")
    made.add_argument(
        "--method",
        choices=("ancestral", "greedy", "beam"),
        help="by default ancestral for samples, beam otherwise",
    )
    made.add_argument("--temperature", type=_temperature, default=1.0, help="of ancestral sampling; 0 is greedy")
    made.add_argument("--beam", type=_positive, default=10)
    made.add_argument("--steps", type=_two_or_more, default=7, help="sentences of an interpolation, ends included")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", action="store_true", help="print JSON")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _two_or_more(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{value} is less than 2")
    return value


def _temperature(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a temperature: a finite number, at least 0")
    return value


_positive.__name__ = _two_or_more.__name__ = "int"  # as argparse names a type
_temperature.__name__ = "float"


# ---- commands -------------------------------------------------------------------------------------------------


def list_zoo(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp list`"""
    recipes.zoo()
    for package in ("models", "guides"):
        table = Table(package[:-1], "what it is", box=None, title=package, title_justify="left")
        root = importlib.import_module(f"pyro_nlp.{package}")
        for module in pkgutil.iter_modules(root.__path__):
            for name, found in vars(importlib.import_module(f"{root.__name__}.{module.name}")).items():
                if isinstance(found, type) and found.__module__ == f"{root.__name__}.{module.name}":
                    table.add_row(name, " ".join((found.__doc__ or "").strip().splitlines()[0].split()))
        _out.print(table, markup=False)
    table = Table("recipe", "what it is", box=None, title="recipes", title_justify="left")
    for name, path in recipes.shipped().items():
        table.add_row(name, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
    _out.print(table, markup=False)


def check(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp check RECIPE`"""
    if _printed_config(options, overrides):
        return
    loaded = recipes.load(options.recipe, overrides)
    rows = np.arange(min(loaded.training.batch_size, len(loaded.corpus.train)))
    batch = loaded.corpus.train.batch(rows)
    objective = loaded.strategy.compile(loaded.model, loaded.guide, batch)
    _out.print(repr(loaded.corpus), markup=False, highlight=False)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        trace = poutine.trace(loaded.model).get_trace(batch)
    table = Table(
        "variable",
        "distribution",
        "batch | event",
        "known",
        "kind",
        title=type(loaded.model).__name__,
        title_justify="left",
    )
    sites: dict[str, Any] = dict(trace.nodes)
    for name, site in sites.items():
        if site["type"] != "sample" or type(site["fn"]).__name__ == "_Subsample":
            continue
        deterministic = bool(site["infer"].get("_deterministic")) or type(_base(site["fn"])).__name__ == "Delta"
        shape = f"{list(site['fn'].batch_shape)} | {list(site['fn'].event_shape)}"
        known = "observed" if site["is_observed"] and not deterministic else "latent"
        table.add_row(
            name,
            type(_base(site["fn"])).__name__,
            shape,
            known,
            "deterministic" if deterministic else "random",
        )
    _out.print(table)
    if objective.summary:
        table = Table(*objective.summary[0], title="how each latent is treated", title_justify="left")
        for row in objective.summary:
            table.add_row(*row.values())
        _out.print(table, markup=False)
    for role, module in (("model", loaded.model), ("guide", loaded.guide)):
        if module is not None:
            _out.print(f"{role}: {sum(p.numel() for p in module.parameters()):,} parameters", highlight=False)


def _base(fn: Any) -> Any:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return fn


def train(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp train RECIPE`"""
    if options.recipe is None and not (options.resume and options.out):
        raise RecipeError("train wants a RECIPE, or --resume --out RUN")
    if _printed_config(options, overrides):
        return
    out = Path(options.out or f"runs/{recipes.find(options.recipe).stem}")
    if options.resume:
        loaded = recipes.to_resume(out, overrides)
    else:
        recipes.find(options.recipe)
        if out.exists():
            RunFolder.create(out)  # refuses before an hour of reading the corpus
        loaded = recipes.load(options.recipe, overrides)
    _out.print(f"{loaded.name} on {loaded.corpus!r}, into {out}", markup=False, highlight=False)
    existed = out.exists()
    try:
        run = fit(
            loaded.model,
            loaded.guide,
            loaded.corpus,
            loaded.strategy,
            loaded.training,
            seed=loaded.seed,
            out=out,
            resume=options.resume,
            recipe=loaded.text,
        )
    finally:
        if options.resume and isinstance(sys.exception(), Interrupted | None):
            RunFolder(out).write("recipe.yaml", loaded.text)  # the epochs may have been extended
        if not existed:
            with contextlib.suppress(OSError):
                out.rmdir()  # it failed before anything was in it
    plots.curves({loaded.name: run.history}, out / "curves.png")
    best = min((row for row in run.history if "valid.loss" in row), key=lambda row: float(row["valid.loss"]))
    _out.print(
        f"best validation bound {best['valid.loss']:.2f} nats per document, after epoch {best['epoch'] + 1}",
        highlight=False,
    )
    _out.print(f"next: pyro-nlp evaluate {out}", highlight=False)


def evaluate_run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp evaluate RUN`"""
    run, loaded = recipes.open_run(options.run_folder)
    split = recipes.split_of(loaded.corpus, options.split)
    found = evaluate(
        run.model, run.guide, split, samples=options.samples, seed=options.seed, precision=options.precision
    )
    protocol = {
        "split": options.split,
        "samples": options.samples,
        "seed": options.seed,
        "precision": options.precision,
    }
    if options.json:
        print(json.dumps({"run": str(options.run_folder), "protocol": protocol} | found.as_dict(), indent=2))
        return
    _out.print(found.table(f"{options.run_folder}, {options.split} split"), markup=False)
    if run.guide is not None and isinstance(split, TextSplit):
        for name, posterior in posteriors(run.model, run.guide, split).items():
            path = Path(options.run_folder) / f"latent_{name}.png"
            plots.latent_space(posterior, path, split.labels, loaded.corpus.labels, f"{name}, {options.split} split")
            _out.print(f"latent space: {path}", highlight=False)


def generate(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp generate RUN`"""
    run, loaded = recipes.open_run(options.run_folder)
    if not hasattr(run.model, "generate"):
        raise ValueError(f"{type(run.model).__name__} does not write text")
    latent = run.guide is not None
    default = ["samples", "reconstructions", "interpolations"] if latent else ["samples"]
    what = [options.what] if options.what else default
    if not latent and set(what) & {"reconstructions", "interpolations"}:
        raise ValueError(f"{type(run.model).__name__} has no latents: it writes samples and imputations")
    found = {kind: _WRITERS[kind](options, run, loaded.corpus) for kind in what}
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for kind, lines in found.items():
        _out.print(f"\n[bold]{kind}[/bold]")
        for line in lines:
            _out.print(
                line if isinstance(line, str) else "\n".join(f"  {key:>13}  {value}" for key, value in line.items()),
                markup=False,
                highlight=False,
            )


def cite(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp cite RECIPE`"""
    if _printed_config(options, overrides):
        return
    _, config, _, made = recipes.read(options.recipe, overrides)
    print("\n\n".join(bibliography(made.dump(config))))


# ---- writing --------------------------------------------------------------------------------------------------


def _sentences(options: argparse.Namespace, corpus: Any, count: int) -> list[list[int]]:
    """Ids of the user's sentences, or of test sentences of middling length."""
    if options.sentence:
        unread = [s for s in options.sentence if not corpus.tokenise(s)]
        if unread:
            raise ValueError(f"no word in --sentence {unread[0]!r}")
        return [corpus.vocabulary.encode(corpus.tokenise(s)).tolist() for s in options.sentence]
    split = corpus.test
    middling = np.flatnonzero((split.lengths >= 6) & (split.lengths <= 12))
    rows = np.random.default_rng(options.seed).permutation(middling if len(middling) >= count else len(split))[:count]
    return [split.words(int(row)) for row in rows]


def _batch(sentences: list[list[int]]) -> TextBatch:
    return TextSplit.from_sentences(sentences).batch(np.arange(len(sentences)))


def _lines(corpus: Any, ids: Any) -> list[str]:
    return [detokenise(corpus.vocabulary.decode(row)) for row in ids]


def _samples(options: argparse.Namespace, run: Run, corpus: Any) -> list[str]:
    extra = {
        "method": options.method or "ancestral",
        "temperature": options.temperature,
        "beam": options.beam,
    }
    return _lines(corpus, sample_prior(run.model, corpus.test, options.count, seed=options.seed, **extra))


def _reconstructions(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, str]]:
    sentences = _sentences(options, corpus, options.count)
    written = reconstruct(run.model, run.guide, _batch(sentences), method=options.method or "beam", beam=options.beam)
    pairs = zip(_lines(corpus, sentences), _lines(corpus, written), strict=True)
    return [{"sentence": a, "reconstructed": b} for a, b in pairs]


def _interpolations(options: argparse.Namespace, run: Run, corpus: Any) -> list[str]:
    sentences = _sentences(options, corpus, 2)[:2]
    if len(sentences) < 2:
        raise ValueError("an interpolation wants two sentences: give --sentence twice")
    assert run.guide is not None
    written = interpolate(
        run.model,
        run.guide,
        _batch(sentences),
        options.steps,
        method=options.method or "beam",
        beam=options.beam,
    )
    first, last = _lines(corpus, sentences)
    return [f"from  {first}", *(f"      {line}" for line in _lines(corpus, written[0])), f"to    {last}"]


def _imputations(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, str]]:
    if not any(" _ " in f" {s} " for s in options.sentence):
        raise ValueError("imputations want a --sentence with `_` for every missing word")
    texts = [sentence.split() for sentence in options.sentence]
    ids = []
    for pieces in texts:
        row: list[int] = []
        for piece in pieces:
            row += [BLANK] if piece == "_" else corpus.vocabulary.encode(corpus.tokenise(piece)).tolist()
        ids.append(row)
    filled = _lines(corpus, impute(run.model, run.guide, ids, beam=options.beam))
    return [{"given": given, "filled": line} for given, line in zip(options.sentence, filled, strict=True)]


_WRITERS: dict[str, Callable[..., Any]] = {
    "samples": _samples,
    "reconstructions": _reconstructions,
    "interpolations": _interpolations,
    "imputations": _imputations,
}


# ---- helpers --------------------------------------------------------------------------------------------------


def _printed_config(options: argparse.Namespace, overrides: Sequence[str]) -> bool:
    if not options.print_config:
        return False
    if options.recipe is None:
        raise RecipeError("--print_config wants a RECIPE")
    _, config, _, made = recipes.read(options.recipe, overrides)
    print(yaml.safe_dump(yaml.safe_load(made.dump(config, skip_unset=False)), sort_keys=False), end="")
    return True


def tune_allocator() -> None:
    """Keep freed memory in the process: with glibc, the large short-lived tensors of text models otherwise cost a page
    fault per 4 KiB at every step. For programs, not for importers; nothing happens where there is no glibc."""
    if sys.platform != "linux":
        return
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


__all__ = ["main", "tune_allocator"]
