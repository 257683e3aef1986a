"""The figure of the main table's differences: the same numbers, in the table's order, in each route's look."""

import pytest
from support.fabricated_study import fabricate, with_grid

from study.report.differences import Differences
from study.report.intervals import intervals
from study.report.material import Material
from study.report.rows import Comparison


def drawn(tmp_path, content):
    material = Material.of(Comparison.from_json(content), tmp_path)
    differences = Differences(material.routes, "AP")
    return material, differences, intervals(material, differences)


@pytest.mark.parametrize("grid", [False, True])
def test_every_route_has_the_interval_of_the_table(tmp_path, grid):
    content = fabricate(tmp_path, seeds=(0, 1, 2), files=False)
    material, differences, found = drawn(tmp_path, with_grid(content, loss=4.0) if grid else content)
    assert [exhibit.title for exhibit in found] == ["Δ AP to unpruned", "Δ AP to prune_then_transfer"]
    for exhibit, reference in zip(found, ("unpruned", "prune_then_transfer"), strict=True):
        others = [route for route in material.routes if differences.to(route, reference) is not None]
        assert len(others) >= 4
        wanted = {(r.name, r.place): differences.to(r, reference) for r in others}
        assert [row[:2] for row in exhibit.rows] == list(wanted)
        for name, place, estimate, low, high, shown, _, n in exhibit.rows:
            difference = wanted[name, place]
            assert (estimate, low, high, n) == (difference.estimate, difference.low, difference.high, 3)
            assert shown == ("yes" if low > 0 or high < 0 else "no")
        bars = [(trace.x, trace.error_x) for trace in exhibit.figure.data]
        lows = [x - down for xs, bar in bars for x, down in zip(xs, bar.arrayminus, strict=True)]
        highs = [x + up for xs, bar in bars for x, up in zip(xs, bar.array, strict=True)]
        assert sorted(lows) == pytest.approx(sorted(difference.low for difference in wanted.values()))
        assert sorted(highs) == pytest.approx(sorted(difference.high for difference in wanted.values()))


def test_lines_stand_in_the_order_of_the_table_and_routes_in_their_look(tmp_path):
    material, _, (exhibit, _) = drawn(tmp_path, with_grid(fabricate(tmp_path, files=False), loss=4.0))
    axis = exhibit.figure.layout.yaxis
    assert [label.split("<br>")[0] for label in axis.categoryarray] == [row[0] for row in exhibit.rows]
    assert axis.autorange == "reversed"  # the first on top
    for trace in exhibit.figure.data:
        assert (trace.marker.color, trace.marker.symbol) == (
            material.looks[trace.name].colour,
            material.looks[trace.name].marker,
        )


def test_one_seed_has_no_interval_to_draw(tmp_path):
    assert drawn(tmp_path, fabricate(tmp_path, seeds=(0,), files=False))[2] == []
