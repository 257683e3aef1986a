"""A figure is higher the longer its legend is, so that what is drawn keeps its place."""

from study.report.plots import base_figure, give_legend_room


def with_lines(shown, hidden=0):
    figure = base_figure("x", "y", height=400)
    for k in range(shown + hidden):
        figure.add_scatter(x=[0], y=[k], name=str(k), showlegend=k < shown)
    return figure


def test_a_line_of_the_legend_beyond_the_usual_adds_its_height():
    assert [give_legend_room(with_lines(n)).layout.height for n in (0, 4, 5, 12)] == [400, 400, 419, 552]
    assert give_legend_room(with_lines(4, hidden=20)).layout.height == 400


def test_on_paper_the_legend_keeps_its_height_and_so_do_bars_beside_their_names():
    assert [give_legend_room(with_lines(n)).layout.meta["stays"] for n in (0, 4, 12)] == [76, 76, 228]
    bars = base_figure("x", "", height=500).add_bar(orientation="h", x=[1], y=["a"])
    assert give_legend_room(bars).layout.meta["stays"] == 500


def test_the_figure_itself_stays_as_it_was():
    figure = with_lines(12)
    give_legend_room(figure)
    assert figure.layout.height == 400
