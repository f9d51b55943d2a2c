"""What the client keeps in memory of millions of turns, and what DuckDB does."""

import pytest

from localism.records import stable_id
from localism.serving import known as known_module
from localism.serving.known import KnownTurns
from localism.store import CACHE_BYTES, Store, now


def turn(number: int, model: str = "weights", text: str = "reply"):
    return {
        "turn_id": stable_id(model, number), "parent_id": None, "stage": "generate",
        "role": "teacher", "template": "draft", "prompt": "p", "prompt_hash": "h",
        "model_fingerprint": model, "sampling": "{}", "sample": 0, "text": text, "logprobs": None,
        "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "seconds": 1.0,
        "finished_at": now(),
    }  # fmt: skip


def test_known_turns_are_those_of_the_ledger_and_those_added_whatever_their_number(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(known_module, "COLLECTED", 7)
    with Store(tmp_path / "c.duckdb") as store:
        store.add_rows("turn", [turn(number) for number in range(100)])
        store.add_rows("turn", [turn(number, "other weights") for number in range(100)])
        known = KnownTurns(store, "weights")
    added = [stable_id("weights", number) for number in range(100, 150)]
    for turn_id in added:
        assert turn_id not in known
        known.add(turn_id)
    mine = [stable_id("weights", number) for number in range(150)]
    assert all(turn_id in known for turn_id in mine) and len(known) == 150
    assert stable_id("other weights", 1) not in known and "0" * 16 not in known
    assert "f" * 16 not in known


def test_an_empty_ledger_knows_nothing_and_learns(tmp_path):
    with Store(tmp_path / "c.duckdb") as store:
        known = KnownTurns(store, "weights")
    assert "f" * 16 not in known
    known.add("f" * 16)
    assert "f" * 16 in known


def memory_of_pages(store: Store) -> int:
    return store.value("SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'BASE_TABLE'")


def test_written_pages_are_let_go_and_nothing_else_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("localism.store.CACHE_BYTES", 1 << 20)
    with Store(tmp_path / "c.duckdb") as store:
        limit = store.value("SELECT current_setting('memory_limit')")
        texts = ["".join(stable_id(n, part) for part in range(60)) for n in range(8_000)]
        store.add_rows("turn", [turn(n, text=text) for n, text in enumerate(texts)])
        store.execute("CHECKPOINT")
        before = memory_of_pages(store)
        store.let_go_of_memory()
        assert memory_of_pages(store) < before / 2 and before > 4 << 20
        assert store.value("SELECT current_setting('memory_limit')") == limit
        assert store.value("SELECT count(DISTINCT text) FROM turn") == 8_000


def test_the_corpus_leaves_most_of_the_memory_to_engines_and_trainers(tmp_path):
    with Store(tmp_path / "c.duckdb") as store:
        total = store.value("SELECT current_setting('memory_limit')")
    number, unit = total.split()
    used = float(number) * {"MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[unit]
    with open("/proc/meminfo") as lines:
        installed = int(lines.readline().split()[1]) * 1024
    assert CACHE_BYTES < used <= 0.26 * installed


@pytest.mark.parametrize("statement", ["SET threads = 1", "SET allowed_configs = ['threads']"])
def test_no_setting_but_the_memory_limit_can_be_changed(tmp_path, statement):
    import duckdb

    with Store(tmp_path / "c.duckdb") as store, pytest.raises(duckdb.Error, match="locked"):
        store.execute(statement)
