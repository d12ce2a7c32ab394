"""Cluster measures against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyro_nlp.evaluation.clustering import many_to_one, v_measure

# Two clusters of four: {a a a b} and {b b c c}.
CLUSTERS, LABELS = [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 2, 2]


def test_every_cluster_stands_for_its_commonest_class() -> None:
    assert many_to_one(CLUSTERS, LABELS) == (3 + 2) / 8


def test_the_v_measure_is_the_harmonic_mean_of_homogeneity_and_completeness() -> None:
    of_labels = -2 * 3 / 8 * math.log(3 / 8) - 2 / 8 * math.log(2 / 8)
    label_given_cluster = 0.5 * (-3 / 4 * math.log(3 / 4) - 1 / 4 * math.log(1 / 4)) + 0.5 * math.log(2)
    cluster_given_label = 3 / 8 * (-1 / 3 * math.log(1 / 3) - 2 / 3 * math.log(2 / 3))  # only b is in both
    homogeneity, completeness = 1 - label_given_cluster / of_labels, 1 - cluster_given_label / math.log(2)
    wanted = 2 * homogeneity * completeness / (homogeneity + completeness)
    assert v_measure(CLUSTERS, LABELS) == pytest.approx(wanted, abs=1e-12)


def test_the_numbering_and_the_shape_do_not_matter() -> None:
    clusters, labels = np.array(CLUSTERS).reshape(2, 4), np.array(LABELS).reshape(2, 4)
    for measure in (many_to_one, v_measure):
        assert measure(7 - 5 * clusters, (labels + 1) % 3) == pytest.approx(measure(CLUSTERS, LABELS), abs=1e-12)


def test_clusters_that_are_the_classes_are_perfect() -> None:
    assert many_to_one(LABELS, LABELS) == 1.0
    assert v_measure(LABELS, LABELS) == pytest.approx(1.0, abs=1e-12)


def test_one_cluster_for_all_is_complete_and_tells_nothing() -> None:
    assert many_to_one([0] * 8, LABELS) == 3 / 8
    assert v_measure([0] * 8, LABELS) == 0.0


def test_one_cluster_each_is_pure_and_halfway_complete() -> None:
    assert many_to_one(range(4), [0, 0, 1, 1]) == 1.0
    assert v_measure(range(4), [0, 0, 1, 1]) == pytest.approx(2 / 3)  # completeness log 2 / log 4


def test_where_there_is_one_class_and_one_cluster_nothing_is_wrong() -> None:
    assert many_to_one([3, 3], [1, 1]) == v_measure([3, 3], [1, 1]) == 1.0


def test_independent_clusters_score_zero() -> None:
    assert v_measure([0, 1, 0, 1], [0, 0, 1, 1]) == pytest.approx(0.0, abs=1e-12)


def test_what_has_no_class_is_left_out() -> None:
    for measure in (many_to_one, v_measure):
        assert measure([*CLUSTERS, 5, -1], [*LABELS, -1, -1]) == measure(CLUSTERS, LABELS)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        many_to_one([0, 1], [0])
    with pytest.raises(ValueError, match="nothing has a class"):
        v_measure([0, 1], [-1, -1])
