"""What the report says and draws, from rows alone."""

from datetime import datetime, timedelta

from localism.reporting import facts, plots
from localism.store import Store

START = datetime(2026, 1, 1)


def happened(store: Store, second: int, kind: str, stage: str, summary: str = "") -> None:
    store.add(
        "event", event_id=f"{second}{kind}{stage}", happened_at=START + timedelta(seconds=second),
        stage=stage, kind=kind, detail=f'{{"summary": "{summary}"}}',
    )  # fmt: skip


def test_a_stages_time_is_that_of_the_call_that_finished_it(tmp_path) -> None:
    with Store(tmp_path / "corpus.duckdb") as store:
        happened(store, 0, "stage_started", "extract")
        happened(store, 100, "stage_started", "extract")  # after a kill
        happened(store, 130, "stage_finished", "extract", "done")
        happened(store, 140, "stage_started", "report")
        happened(store, 145, "stage_finished", "report", "first page")
        happened(store, 900, "stage_started", "report")  # the one that is being written
        rows = {row["stage"]: row for row in store.query(facts._STAGES)}
    assert (rows["extract"]["seconds"], rows["extract"]["calls"]) == (30, 2)
    assert (rows["report"]["seconds"], rows["report"]["summary"]) == (5, "first page")


def test_the_map_names_the_largest_clusters_and_draws_every_skill() -> None:
    rows = [
        {"map_x": float(i), "map_y": float(i * i % 7), "rare": False, "cluster": f"group_{i % 14}",
         "size": 5 + i % 14}
        for i in range(70)
    ]  # fmt: skip
    rows += [{"map_x": 3.0, "map_y": 3.0, "rare": True, "cluster": "alone", "size": 1}]
    svg = plots.skill_map(rows)
    shown = {number for number in range(14) if f"group {number}<" in svg.replace("\n", "")}
    assert shown == set(range(4, 14))  # ten names, those of the largest
    assert "alone" not in svg
    assert plots.skill_map(rows) == svg
