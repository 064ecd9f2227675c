"""A target is met by all rows of its group."""

from __future__ import annotations

import pytest

from vaekernels.bench.targets import Target, judge


@pytest.mark.parametrize("over", ["geometric mean", "least", "greatest"])
@pytest.mark.parametrize("missing", [{}, {"ratio": None}])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_without_its_figure_fails_the_goal(over, missing, place):
    rows = [{"group": "a", "ratio": 2.0}, {"group": "a", "ratio": 2.0}]
    goals = {"a": [Target(2.0, over)]}
    (whole,) = judge(rows, goals)
    assert (whole["met"], whole["measured"], whole["rows"]) == (True, pytest.approx(2.0), 2)
    rows.insert(place, {"group": "a", **missing})
    (partial,) = judge(rows, goals)
    assert (partial["met"], partial["measured"], partial["rows"]) == (False, pytest.approx(2.0), 3)


@pytest.mark.parametrize(
    ("over", "ratios", "met_at", "missed_at"),
    [
        ("geometric mean", (1.0, 4.0), 2.0, 2.01),
        ("least", (1.0, 4.0), 1.0, 1.01),
        ("greatest", (1.0, 4.0), 4.0, 3.99),
    ],
)
def test_a_goal_is_met_up_to_its_bound(over, ratios, met_at, missed_at):
    rows = [{"loss": ratio} for ratio in ratios]
    assert Target(met_at, over, "loss").judge(rows)["met"]
    assert not Target(missed_at, over, "loss").judge(rows)["met"]


def test_goals_are_of_their_own_group():
    rows = [{"group": "a", "ratio": 3.0}, {"group": "b", "ratio": 1.0}]
    judged = judge(rows, {"b": [Target(2.0)], "a": [Target(2.0)], "c": [Target(2.0)]})
    assert [(goal["group"], goal["met"]) for goal in judged] == [("b", False), ("a", True)]
