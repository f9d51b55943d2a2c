"""docs/sql.md: its questions, its results, and the script that writes them anew."""

import re

import pytest
import sql_page

from localism import reader
from localism.store import Store


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A corpus without a row, and a run that is not one yet."""
    folder = tmp_path_factory.mktemp("empty")
    Store(folder / reader.CORPUS).close()
    return folder


def test_the_page_answers_more_than_twenty_questions_each_with_its_result():
    page = sql_page.PAGE.read_text()
    start, end = page.index("\n# Questions\n"), page.index("\n# Views and tables\n")
    asked = re.findall(r"^### (.+)$", page[start:end], re.M)
    with_results = [query for query in sql_page.queries(page[start:end]) if query.columns]
    assert len(asked) >= 20 and [query.title for query in with_results] == asked


def test_every_query_gives_the_columns_that_the_page_shows(empty):
    shown = [query for query in sql_page.queries() if query.columns]
    assert len(shown) >= 30
    for query in shown:
        assert reader.read(empty, query.sql).columns == query.columns, query.title


def test_a_renewed_page_differs_in_its_results_alone(empty):
    with Store(empty / reader.CORPUS) as store:
        store.execute(
            "INSERT OR IGNORE INTO run VALUES ('r', 'tiny', now()::TIMESTAMP, '0',"
            " '{\"seed\": 7}', 'h', true)"
        )
        store.event("warning", "curate", problem="a | b\nc")
    page = sql_page.PAGE.read_text()
    new = sql_page.renewed(page, empty, "made for a test")
    assert "one run (tiny, seed 7, 0 skills, 0 mixes" in new and "made for a test" in new
    assert "warning  a | b c  1" in re.sub(" +", lambda m: m[0][:2], new)
    assert [q.sql for q in sql_page.queries(new)] == [q.sql for q in sql_page.queries(page)]
    outside = r"```text\n.*?```|<!-- run -->\n[^\n]*\n"
    blank = [re.sub(outside, "", text, flags=re.S) for text in (page, new)]
    assert blank[0] == blank[1]
    assert sql_page.renewed(new, empty, "made for a test") == new
