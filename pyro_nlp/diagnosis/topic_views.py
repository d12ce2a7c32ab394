"""How the sections of a topic model are shown (layer: recipe)."""

from __future__ import annotations

import numpy as np

from pyro_nlp.diagnosis.blocks import Beside, Block, Cell, Grid, Step, Steps, Words, number, whole
from pyro_nlp.diagnosis.drawings import stacked, topic_map, word_bars
from pyro_nlp.diagnosis.sections import Documents
from pyro_nlp.diagnosis.topics import Mixture, Topic, Topics

TOPICS_LEAD = (
    "Each topic is a distribution over words. Its share is the mean over these documents; its distance to the topic "
    "most like it is 0 where their words are the same and 1 where they have none in common; NPMI says whether its top "
    "words occur in the same training documents, from -1 to 1. Click a column's title to sort by it."
)
MIXTURES_LEAD = "Shares of topics at the posterior mean, and the words of the largest, for documents that say most."
ADDED = (
    "This model does not mix the topics' distributions but adds their logits: a document's words follow from all "
    "topics together, and its shares only say which of them weigh most."
)
BRIEF = 5
"""Words of a topic in a document's lines."""


def topics(found: Topics) -> list[Block]:
    """The map beside the bars of words, and the table."""
    steps = Steps("Topics, one by one", [_step(topic) for topic in found.topics])
    blocks: list[Block] = [] if found.mixed else [Words(ADDED)]
    blocks.append(steps if found.places is None else Beside(topic_map(found), steps))
    coherent = any(topic.npmi is not None for topic in found.topics)
    titles = ["topic", "share", "largest of", *(["NPMI"] if coherent else []), "distance", "most like", "words"]
    return [*blocks, Grid("Table of topics", titles, [_row(topic, coherent) for topic in found.topics], True)]


def _row(topic: Topic, coherent: bool) -> list[Cell]:
    npmi = [number(np.nan if topic.npmi is None else topic.npmi, 3)] if coherent else []
    nearest = Cell("") if topic.nearest is None else whole(topic.nearest)
    distance = Cell("") if topic.distance is None else number(topic.distance, 3)
    percent = (Cell(f"{value:.1%}", value) for value in (topic.share, topic.largest))
    return [whole(topic.number), *percent, *npmi, distance, nearest, Cell(", ".join(topic.words), wide=True)]


def _step(topic: Topic) -> Step:
    lines = [("share", f"{topic.share:.1%}, the largest of {topic.largest:.1%} of the documents")]
    if topic.nearest is not None:
        lines.append(("most like", f"topic {topic.nearest}, at distance {topic.distance:.3f}"))
    if topic.npmi is not None:
        lines.append(("NPMI", f"{topic.npmi:.3f}"))
    return Step(f"Topic {topic.number}", lines, word_bars(topic))


def mixtures(found: list[Mixture], documents: Documents, nearest: np.ndarray | None, of: Topics | None) -> list[Block]:
    """Documents as stacked bars."""
    words = {} if of is None else {topic.number: ", ".join(topic.words[:BRIEF]) for topic in of.topics}
    return [Steps("Documents", [_document(item, documents, nearest, words) for item in found])]


def _document(item: Mixture, documents: Documents, nearest: np.ndarray | None, words: dict[int, str]) -> Step:
    i = item.document
    facts = [f"{documents.lengths[i]} words"]
    for label, values in (("NLL", documents.nll), ("KL", documents.kl), ("k-hat", documents.pareto_k)):
        if values is not None:
            facts.append(f"{label} {number(values[i]).text}")
    lines = [
        (f"topic {topic}, {share:.0%}", words.get(topic, ""))
        for topic, share in zip(item.topics, item.shares, strict=True)
        if share >= 0.005
    ]
    if documents.texts is not None:
        lines.append(("words", documents.texts[i]))
    if documents.labels is not None:
        lines.append(("label", documents.labels[i]))
    lines.append(("numbers", ", ".join(facts)))
    if nearest is not None and documents.texts is not None:
        lines += [("nearest", _named(documents, int(j))) for j in nearest[i]]
    return Step(f"Document {documents.rows[i]:,}: {item.why}", lines, stacked(item))


def _named(documents: Documents, row: int) -> str:
    assert documents.texts is not None
    label = f", {documents.labels[row]}" if documents.labels is not None and documents.labels[row] else ""
    return f"{documents.rows[row]:,}{label}: {documents.texts[row]}"
