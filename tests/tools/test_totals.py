"""tools/totals.py: what a counter counted through deaths and new beginnings."""

import pytest

from tools.stack import History, PrometheusApi
from tools.totals import Remembering, gained, totals


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([], 0),
        ([0, 3, 3, 5], 5),
        ([2, 5], 5),  # born between two scrapes: it began at zero
        ([4, 1, 6], 10),  # began anew, and had 1 when it was seen again
        ([4, 4, 0, 0, 2], 6),
    ],
)
def test_a_counter_that_began_anew_goes_on(values: list[float], total: float) -> None:
    assert gained(values) == total


def test_servers_that_ended_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each label's value all series together, one that is no more and one without the label too."""
    told = [
        History({"route": "/a", "instance": "1"}, [(1, 3), (2, 7)]),
        History({"route": "/a", "instance": "2"}, [(8, 1)]),
        History({"instance": "3"}, [(8, 5), (9, 2)]),
    ]
    monkeypatch.setattr(PrometheusApi, "histories", lambda self, selector, seconds, at=None: told)
    prometheus = Remembering("http://nowhere")
    assert totals(prometheus, "requests", ("route",)) == {("/a",): 8, ("",): 7}
    assert [tuple(each) for each in prometheus.sums("requests", ("route",))] == [({"route": "/a"}, 8), ({}, 7)]
