"""Columns and tables."""

from __future__ import annotations

from tools.musterctl.printing.layout import align_tabs, grid, wrap


def test_tab_columns_end_at_the_next_stop_after_their_widest_cell() -> None:
    assert align_tabs("\tab\tx\n\tabcdefgh\ty") == "\tab\t\tx\n\tabcdefgh\ty"


def test_a_line_without_the_column_ends_it() -> None:
    assert align_tabs("a\tx\n\nabcdefghi\ty") == "a\tx\n\nabcdefghi\ty"


def test_titles_are_centred_and_cells_stand_to_the_right() -> None:
    assert grid(["ID", "NAME"], [["8e9e05c5", "a"], ["1", "default"]]) == (
        "+----------+---------+\n"
        "|    ID    |  NAME   |\n"
        "+----------+---------+\n"
        "| 8e9e05c5 |       a |\n"
        "|        1 | default |\n"
        "+----------+---------+\n"
    )


def test_long_cells_are_broken_at_blanks() -> None:
    assert wrap("memberID:9245560133661801908 alarm:NOSPACE ") == [
        "memberID:9245560133661801908",
        "alarm:NOSPACE",
    ]
    assert wrap("http://127.0.0.1:2379,http://127.0.0.1:22379") == [
        "http://127.0.0.1:2379,http://127.0.0.1:22379"
    ]
    assert wrap("context deadline exceeded") == ["context deadline exceeded"]
    assert grid(["A", "B"], [["x", "memberID:9245560133661801908 alarm:NOSPACE"]]).splitlines()[3:5] == [
        "| x | memberID:9245560133661801908 |",
        "|   |                alarm:NOSPACE |",
    ]


def test_a_table_is_as_wide_as_its_cells_are_shown() -> None:
    """Chinese, Japanese and Korean letters and emoji take two columns; accents of their own take none."""
    assert grid(["NAME", "A"], [["\u8282\u70b91", "x"], ["\U0001f680", "y"], ["e\u0301\u200b", "z"]]) == (
        "+-------+---+\n"
        "| NAME  | A |\n"
        "+-------+---+\n"
        "| \u8282\u70b91 | x |\n"
        "|    \U0001f680 | y |\n"
        "|     e\u0301\u200b | z |\n"
        "+-------+---+\n"
    )
    assert wrap("\u8282" * 8 + " " + "\u70b9" * 8) == ["\u8282" * 8, "\u70b9" * 8]
