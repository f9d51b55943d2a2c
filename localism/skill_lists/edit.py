"""A skill list -> the skills of a run: as its start, or as an edit of what cluster found.

Alone: localism skills import FILE.csv --run NAME
"""

import getpass
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from localism import tables
from localism.context import Context
from localism.errors import UsageError
from localism.records import stable_id
from localism.run import finished_stages
from localism.skill_lists.changes import Group, count_changes, grouped
from localism.skill_lists.csv_file import ListedSkill, SkillList, check
from localism.skill_lists.regroup import Regrouped
from localism.store import Row, Store

LINES_SHOWN = 5


def bring_in(context: Context, listed: SkillList) -> str:
    """Edit the skills of a run, or start it with them; returns what came of it, for people.

    Allowed before extract and between cluster and mix; UsageError says the way out elsewhere. All
    of it is one transaction.
    """
    store, done = context.store, finished_stages(context.store)
    earlier = store.value("SELECT max(detail->>'sha256') FROM event WHERE kind = 'skills_imported'")
    if earlier == listed.sha256:
        return f"no change: {listed.path.name} started this run"
    if "mix" in done or store.value("SELECT count(*) FROM mix"):
        raise _too_late(context, is_list=earlier is not None)
    if "cluster" in done:
        return _edit(context, listed)
    if "extract" in done or store.value("SELECT count(*) FROM skill_label"):
        stage = "cluster" if "extract" in done else "extract"
        raise UsageError(
            f"skills can be imported before extract, or after cluster; {stage} comes first here",
            where=str(context.folder),
            fix=f"localism {stage} --run {context.folder.name}, or --run NEW for a run of its own",
        )
    return _start(store, listed)


def _too_late(context: Context, *, is_list: bool) -> UsageError:
    again = "skills import LIST.csv" if is_list else "extract"
    return UsageError(
        "skills can be edited until mix has planned with them; this run has its plan",
        where=str(context.folder),
        fix=f"`localism fork {context.folder.name} NEW`, then `localism {again} --run NEW`, "
        "`localism cluster --run NEW`, and import there",
    )


def user() -> str:
    """Who is at work, for the record."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown"


# ---- a list that starts a run ----------------------------------------------------------------


def _start(store: Store, listed: SkillList) -> str:
    check(listed)
    names = {row.name for row in listed.rows}
    labels = list(_label_rows(listed.rows, listed, edition=0))
    summary = (
        f"{tables.number_of(len(names), 'skill')} imported from {listed.path.name} by {user()}, "
        f"{tables.number_of(len(labels), 'label')}"
    )
    with store.transaction():
        store.event("stage_started", "extract")
        store.add_rows("skill_label", labels)
        store.event("skills_imported", "extract", **_who(listed), skills=len(names))
        store.event("stage_finished", "extract", summary=summary)
    return summary


def _label_rows(rows: Iterable[ListedSkill], listed: SkillList, edition: int) -> Iterable[Row]:
    """As many labels as a row counts, so that sizes survive; ids do not hang on the rows' order."""
    numbers: Counter[str] = Counter()
    for row in rows:
        for _ in range(row.labels):
            numbers[row.written] += 1
            yield {
                "label_id": stable_id(
                    "imported", listed.path.name, edition, row.written, numbers[row.written]
                ),
                "raw": row.written,
                "name": row.name,
                "source": row.source or listed.path.name,
                "reason": row.reason or None,
            }


def _who(listed: SkillList) -> dict[str, Any]:
    return {"user": user(), "file": listed.path.name, "sha256": listed.sha256}


# ---- an edit ---------------------------------------------------------------------------------


def _edit(context: Context, listed: SkillList) -> str:
    store = context.store
    last = "SELECT arg_max(detail->>'sha256', happened_at) FROM event WHERE kind = 'skills_edited'"
    if store.value(last) == listed.sha256:  # names that were swapped would be swapped back
        return f"no change: {listed.path.name} was the last import"
    skills = {row["skill_id"]: row for row in store.query("FROM skill ORDER BY name")}
    clusters = {row["cluster_id"]: row for row in store.query("FROM cluster ORDER BY name")}
    named = {row["name"]: key for key, row in clusters.items()}
    check(listed, {key: row["name"] for key, row in skills.items()}, named)
    groups = grouped(listed, skills)
    changes = count_changes(groups, skills)
    notes = _unread(listed, skills, clusters) + _by_name(groups, listed, skills)
    if not any(vars(changes).values()):
        return f"no change{notes}"
    after = Regrouped(groups, skills, clusters, named)
    with store.transaction():
        _point_labels(store, listed, groups, skills)
        _point_seeds(store, after.successor)
        for table, rows in (("cluster", after.cluster_rows()), ("skill", after.skill_rows())):
            store.execute(f"DELETE FROM {table}")
            store.add_rows(table, rows)
        store.event("skills_edited", "cluster", **_who(listed), **vars(changes))
    count = tables.number_of(len(groups), "skill")
    return f"{changes}: {count} in {tables.number_of(len(after.members), 'cluster')}{notes}"


def _unread(listed: SkillList, skills: Mapping[str, Row], clusters: Mapping[str, Row]) -> str:
    """A note on cells that somebody may have changed in the belief that they are read."""
    differ = 0
    for row in listed.rows:
        if row.skill_id in skills:
            skill = skills[row.skill_id]
            cluster = clusters[skill["cluster_id"]]["name"]
            differ += row.cluster not in ("", cluster) or int(row.count or 0) not in (
                0, skill["count"],
            )  # fmt: skip
    if not differ:
        return ""
    rows = tables.number_of(differ, "row")
    return f"; only names are read of skills that exist, {rows} with another count or cluster"


def _by_name(groups: Sequence[Group], listed: SkillList, skills: Mapping[str, Row]) -> str:
    """A note on rows that mean a skill of the run by their name, and not by its skill_id."""
    added = {row.line for group in groups for row in group.added}
    rows = [row for row in listed.rows if row.skill_id not in skills and row.line not in added]
    bare = [row.line for row in rows if not row.skill_id]
    strange = [row.line for row in rows if row.skill_id]
    note = ""
    if bare:
        note += f"; without skill_id, but a skill that the run has: {_lines(bare)}, nothing added"
    if strange:
        note += f"; a skill_id that the run has not, taken by name: {_lines(strange)}"
    return note


def _lines(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:LINES_SHOWN]))
    more = len(numbers) - LINES_SHOWN
    return f"line{'s' * (len(numbers) > 1)} {shown}" + (f" and {more:,} more" if more > 0 else "")


def _point_labels(
    store: Store, listed: SkillList, groups: Sequence[Group], skills: Mapping[str, Row]
) -> None:
    """Labels of dropped skills keep their rows, without a skill; all others follow theirs."""
    moves = {owner: group.skill_id for group in groups for owner in group.owners}
    store.execute(
        "UPDATE skill_label SET skill_id = NULL, unusable = ? WHERE list_contains(?, skill_id)",
        [f"dropped by {user()}", sorted(skills.keys() - moves.keys())],
    )
    store.execute(
        "UPDATE skill_label SET skill_id = moves.new"
        " FROM (SELECT unnest(?) AS old, unnest(?) AS new) moves"
        " WHERE skill_label.skill_id = moves.old AND moves.old <> moves.new",
        [list(moves), list(moves.values())],
    )
    edition = 1 + store.value("SELECT count(*) FROM event WHERE kind = 'skills_edited'")
    added = [row for group in groups for row in group.added]
    if added:
        rows = _label_rows(added, listed, edition)
        with_skill = [{**row, "skill_id": stable_id("skill", row["name"])} for row in rows]
        store.add_rows("skill_label", with_skill)


def _point_seeds(store: Store, successor: Mapping[str, str]) -> None:
    """Seed examples follow their cluster; where it vanished they have none."""
    store.execute(
        "UPDATE seed_example SET cluster_id = moves.new,"
        " assigned_by = CASE WHEN moves.new IS NULL THEN NULL ELSE assigned_by END"
        " FROM (SELECT cluster_id AS old, successor.new FROM cluster LEFT JOIN"
        " (SELECT unnest(?) AS old, unnest(?) AS new) successor ON old = cluster_id) moves"
        " WHERE seed_example.cluster_id = moves.old",
        [list(successor), list(successor.values())],
    )
