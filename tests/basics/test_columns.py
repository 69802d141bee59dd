"""Tables of text: lines where they are printed, a table in a notebook."""

from compedu.columns import Columns, html_table

ROWS = [("", "points"), ("plain & <simple>", "+1.00"), ("  indented", "-0.50")]


def test_columns_are_lines_where_they_are_printed():
    assert str(Columns(ROWS, left={0})).splitlines() == [
        "                  points",
        "plain & <simple>   +1.00",
        "  indented         -0.50",
    ]


def test_columns_are_a_table_in_a_notebook_with_text_as_text():
    shown = Columns(ROWS, left={0})._repr_html_()
    assert shown.count("<tr>") == 3 and shown.count("<th ") == 2 and shown.count("<td ") == 4 and "tabindex" in shown
    assert "<td style='text-align: left'>plain &amp; &lt;simple&gt;</td>" in shown
    assert "<td style='text-align: left'>&emsp;indented</td><td style='text-align: right'>-0.50</td>" in shown


def test_a_table_keeps_a_figure_and_its_unit_on_a_line_and_says_what_it_is():
    shown = html_table(("share",), [("40.0 %",)], "Shares <1>", class_="wide")
    assert shown.startswith("<table class='wide'><caption>Shares &lt;1&gt;</caption>")
    assert "<th scope='col'>share</th>" in shown and "<td>40.0&nbsp;%</td>" in shown
