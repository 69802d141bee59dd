"""Tables of text: lines where they are printed, a table in a notebook."""

from compedu.columns import Columns

ROWS = [("", "points"), ("plain & <simple>", "+1.00"), ("  indented", "-0.50")]


def test_columns_are_lines_where_they_are_printed():
    assert str(Columns(ROWS, left={0})).splitlines() == [
        "                  points",
        "plain & <simple>   +1.00",
        "  indented         -0.50",
    ]


def test_columns_are_a_table_in_a_notebook_with_text_as_text():
    shown = Columns(ROWS, left={0})._repr_html_()
    assert shown.count("<tr>") == 3 and shown.count("<th ") == 2 and shown.count("<td ") == 4
    assert "<td style='text-align: left'>plain &amp; &lt;simple&gt;</td>" in shown
    assert "<td style='text-align: left'>&emsp;indented</td><td style='text-align: right'>-0.50</td>" in shown
