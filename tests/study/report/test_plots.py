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


def test_the_figure_itself_stays_as_it_was():
    figure = with_lines(12)
    give_legend_room(figure)
    assert figure.layout.height == 400
