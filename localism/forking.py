"""A run with a changed recipe that pays only for the model calls that the change touches."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localism import reader
from localism.errors import UsageError
from localism.planning import seen
from localism.recipe import asked_recipe, write_recipe
from localism.run import existing_folder, folder_of
from localism.store import READING, WRITING, Store, attached


def fork(old: str, new: str, models: Path | None, overrides: Sequence[str]) -> tuple[int, str]:
    """Start run `new` with another recipe and the ledger of run `old`.

    Returns the number of turns carried and what to do next. A model call is found in the ledger by
    what was asked of which model, so the new run pays only for calls that its changed recipe makes
    different. Skills from a list are no model calls: they have to be imported again.
    """
    import duckdb

    source, target = existing_folder(old), folder_of(new)
    if target.exists():
        raise UsageError(
            f"run {new!r} exists already", where=str(target), fix="choose another name"
        )
    recipe = asked_recipe(source, models, overrides)
    if not (source / reader.CORPUS).exists():
        raise UsageError(
            f"run {old!r} has no corpus to carry over",
            where=str(source / reader.CORPUS),
            fix=f"start the new one by itself: localism run-all --run {new}",
        )
    parent = _parent(source)
    # Built beside its place and renamed, so that a fork is there whole or not at all.
    building = target.with_name(f"{target.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        carried = _carry_turns(source / reader.CORPUS, building / reader.CORPUS, parent)
    except duckdb.IOException:
        shutil.rmtree(building)
        raise UsageError(
            f"run {old!r} is being worked on",
            where=str(source),
            fix="fork it when it has ended or has been interrupted",
        ) from None
    write_recipe(building, *recipe)
    building.rename(target)
    edits = "SELECT 1 FROM event WHERE kind IN ('skills_imported', 'skills_edited')"
    if reader.read(source, edits).rows:
        where = f"skills came from a file: localism skills import FILE.csv --run {new}"
        return carried, f"its {where}, then localism run-all --run {new}"
    return carried, f"localism run-all --run {new}"


def _parent(source: Path) -> dict[str, Any]:
    """What `localism plan` compares with, to say which of the calls the fork will ask again."""
    assets = "SELECT role, list_sort(list(fingerprint)) AS every FROM asset GROUP BY ALL"
    own = seen.look(source)
    return {
        "parent": source.name,
        "config": own.config.model_dump(mode="json"),
        "assets": {row["role"]: row["every"] for row in reader.read(source, assets).as_dicts()},
        "done": sorted(own.took),
    }


def _carry_turns(old: Path, new: Path, parent: dict[str, Any]) -> int:
    Store(new).close()
    with attached(new=(new, WRITING), old=(old, READING)) as connection:
        connection.execute("INSERT INTO turn BY NAME SELECT * FROM old.turn")
        (carried,) = connection.execute("SELECT count(*) FROM turn").fetchone() or (0,)
    with Store(new) as store:
        store.event("forked", turns=carried, **parent)
    return int(carried)
