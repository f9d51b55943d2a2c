"""Tables fit the terminal, whatever is in them, and lose nothing without saying so."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localism import tables
from localism.reader import Table

LONG = "It is normal to feel unsure about a rainy walk and nobody will mind if you stay at home"


@pytest.mark.parametrize(("count", "said"), [(0, "0 mixes"), (1, "1 mix"), (2_000, "2,000 mixes")])
def test_one_of_a_thing_is_not_told_in_the_plural(count: int, said: str):
    assert tables.number_of(count, "mix", "mixes") == said
    assert tables.number_of(count, "row") == said.replace("mixes", "rows").replace("mix", "row")


def lines(table: Table, width: int | None, prose_lines: int = 1) -> list[str]:
    return tables.render(table, "table", width, prose_lines).splitlines()


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(max_size=80),
    st.lists(st.text(max_size=9), max_size=3),
)


@given(
    st.lists(st.text("abc_ d", min_size=1, max_size=20), min_size=1, max_size=9).flatmap(
        lambda names: st.tuples(
            st.just(names),
            st.lists(
                st.lists(cells, min_size=len(names), max_size=len(names)), min_size=4, max_size=6
            ),
        )
    ),
    st.integers(tables.NARROWEST, 130),
    st.integers(1, 3),
)
def test_no_line_is_wider_than_the_terminal(made, width, prose_lines):
    columns, rows = made
    for line in lines(Table(columns, rows), width, prose_lines):
        assert tables.width_of(line) <= width, line


def test_texts_give_way_before_names_and_numbers():
    table = Table(["skill", "text", "n"], [["check_account_statements", LONG, 1234567]] * 4)
    shown = lines(table, 60)
    assert shown[2].startswith("check_account_statements  It is normal")
    assert shown[2].endswith("…  1,234,567")
    assert len(shown) == 2 + 4 + 1


def test_a_text_takes_more_lines_where_it_may():
    shown = lines(Table(["id", "text"], [["a", LONG]] * 4), 40, prose_lines=9)
    assert " ".join(line[4:] for line in shown[2:5]) == LONG
    assert "…" not in "".join(shown)


def test_names_are_broken_before_a_column_is_left_out():
    row = ["organize_tool_boxes_at_home", "review_vocabulary_lists", 1]
    shown = lines(Table(["skill_a", "skill_b", "n"], [row] * 4), 40)
    assert shown[2].split() == ["organize_tool_", "review_vocabulary_", "1"]
    assert shown[3].split() == ["boxes_at_home", "lists"]


def test_columns_that_do_not_fit_are_named_below():
    columns = [f"number_{i}" for i in range(9)]
    shown = lines(Table(columns, [[10**9 + i for i in range(9)]] * 5), 60)
    kept = sum(name in " ".join(shown[:2]).replace(" ", "") for name in columns) or 4
    assert len(shown[3].split()) == kept
    said = " ".join(shown[-3:])
    assert f"{9 - kept} columns did not fit" in said and "--format csv has all" in said
    assert all(name in said for name in columns[kept:])


def test_a_few_rows_that_are_too_wide_are_shown_whole_one_under_the_other():
    columns = [f"number_{i}" for i in range(9)]
    shown = lines(Table(columns, [list(range(9)), list(range(9, 18))]), 40)
    assert shown[0] == "--- 1" and shown[10] == "--- 2"
    assert shown[11].split() == ["number_0", "9"] and shown[-1] == "2 rows"


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("日本", 4), ("e\u0301", 1), ("\u200bab", 2), ("ｗide", 5), ("🦆", 2)],
)
def test_width_is_what_a_terminal_gives_a_text(text, width):
    assert tables.width_of(text) == width


def test_wide_characters_do_not_push_their_neighbours():
    shown = lines(Table(["a", "b"], [["日本語", "x"], ["abc", "y"]]), None)
    assert shown[2:4] == ["日本語  x", "abc     y"]
    assert tables.shortened("日本語テキスト", 6) == "日本…"


def test_a_models_text_cannot_steer_the_terminal():
    (cell,) = lines(Table(["a"], [["\x1b[31mred\x07 \u202edlrow\r\n ok"]]), None)[2:3]
    assert cell == "�[31mred� �dlrow ok"


def test_numbers_of_a_column_have_as_many_decimals():
    shown = lines(Table(["a", "b", "c"], [[47.0, 0.00012, 12345.6], [46.93, 2.5, None]]), None)
    assert [line.split() for line in shown[2:4]] == [
        ["47.00", "0.00012", "12,346"],
        ["46.93", "2.5", "-"],
    ]


def test_markdown_is_a_table_whatever_a_cell_holds():
    text = tables.render(Table(["a|b", "n"], [["x|y\nz", 2], [None, 3]]), "markdown")
    assert text.splitlines() == ["| a\\|b | n |", "| --- | ---: |", "| x\\|y z | 2 |", "| - | 3 |"]


@given(st.lists(st.tuples(st.text(), st.integers() | st.none()), max_size=5))
def test_csv_gives_every_text_back(rows):
    text = tables.render(Table(["t", "n"], [list(row) for row in rows]), "csv")
    back = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert back == [[t, "" if n is None else str(n)] for t, n in rows]


def test_a_table_without_columns_or_rows_is_still_a_table():
    assert lines(Table(["a"], []), 80) == ["a", "-", "0 rows"]
    assert lines(Table([], []), 80)[-1] == "0 rows"


@pytest.mark.parametrize(
    ("size", "said"),
    [(12_463_872, "12.5 MB"), (99_999_999, "100.0 MB"), (1e8, "0.1 GB"), (85.9e9, "85.9 GB")],
)
def test_sizes_are_told_in_gigabytes_and_small_ones_in_megabytes(size, said):
    assert tables.gigabytes(size) == said
