"""Tokens of training examples, packed: no tokenizer and no trainer is needed."""

import pytest

from localism.training import tokens
from localism.training.tokens import IGNORED


def test_examples_in_several_parts_keep_their_order_and_labels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "ROWS_AT_ONCE", 2)
    examples = [([7, 8, 9 + n], 1 + n % 2) for n in range(5)]
    rows = tokens._Rows()
    for ids, start in examples:
        rows.add(ids, start)
    assert rows.table().to_pylist() == [
        {"input_ids": ids, "labels": [IGNORED] * start + ids[start:]} for ids, start in examples
    ]


def test_a_token_takes_eight_bytes_and_no_example_makes_an_empty_table():
    rows = tokens._Rows()
    assert rows.table().num_rows == 0
    for _ in range(300):
        rows.add(list(range(1000)), 10)
    assert rows.table().nbytes < 8.1 * 300 * 1000
