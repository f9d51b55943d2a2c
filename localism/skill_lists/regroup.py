"""Skills after an edit -> rows of the tables skill and cluster."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from localism.records import stable_id
from localism.skill_lists.changes import Group
from localism.store import Row


class Regrouped:
    """Which cluster each skill is in after the edit, and what the clusters are called."""

    def __init__(
        self,
        groups: Sequence[Group],
        skills: Mapping[str, Row],
        clusters: Mapping[str, Row],
        named: Mapping[str, str],
    ) -> None:
        self._skills, self._clusters = skills, clusters
        self._counts = {g.name: self._count(g) for g in groups}
        self.members: dict[str, list[Group]] = defaultdict(list)
        """Key (an old cluster_id, or the name of a new skill) -> its skills, by name."""
        self._became: dict[str, tuple[str, str]] = {}  # old name -> key, new name
        for group in groups:
            key = self._home(group, named)
            self.members[key].append(group)
            self._became |= {skills[owner]["name"]: (key, group.name) for owner in group.owners}
        medoids = {key: self._medoid(key) for key in self.members}
        self._medoids = medoids
        self._ids = {key: stable_id("cluster", medoid) for key, medoid in medoids.items()}
        self.successor = self._successors()
        """Old cluster_id -> the cluster_id that its seed examples go to."""

    def _home(self, group: Group, named: Mapping[str, str]) -> str:
        """Where the survivor was; for a new skill the cluster that its row names, or its own."""
        if group.survivor:
            home: str = self._skills[group.survivor]["cluster_id"]
            return home
        return next((named[row.cluster] for row in group.added if row.cluster), group.name)

    def _count(self, group: Group) -> int:
        mine = sum(self._skills[owner]["count"] for owner in group.owners)
        return int(mine + sum(row.labels for row in group.added))

    def _medoid(self, key: str) -> str:
        """The old one under its new name; where it left, the largest takes its place."""
        members = self.members[key]
        old = self._clusters[key]["medoid"] if key in self._clusters else ""
        home, name = self._became.get(old, ("", ""))
        if home == key:
            return name
        return min(members, key=lambda g: (-self._counts[g.name], len(g.name), g.name)).name

    def _successors(self) -> dict[str, str]:
        """A cluster goes on as itself; one without members where its medoid was merged into."""
        found = {}
        for key, old in self._clusters.items():
            home = key if key in self.members else self._became.get(old["medoid"], ("", ""))[0]
            if home:
                found[key] = self._ids[home]
        return found

    def _names(self) -> dict[str, str]:
        """Key -> name: the medoid's, or the teacher's as long as no medoid has it."""
        names = {}
        taken = set(self._medoids.values())
        for key, medoid in self._medoids.items():
            old = self._clusters.get(key)
            by_teacher = old is not None and old["name"] != old["medoid"]
            names[key] = old["name"] if old and by_teacher and old["name"] not in taken else medoid
        return names

    def cluster_rows(self) -> list[Row]:
        """Rows of table cluster."""
        from localism.clustering.naming import keywords

        names = self._names()
        words = keywords(
            (group.name, self._counts[group.name], names[key])
            for key, members in self.members.items()
            for group in members
        )
        return [
            {
                "cluster_id": self._ids[key],
                "name": names[key],
                "medoid": self._medoids[key],
                "size": len(members),
                "persistence": self._clusters.get(key, {}).get("persistence"),
                "keywords": words[names[key]],
            }
            for key, members in self.members.items()
        ]

    def skill_rows(self) -> list[Row]:
        """Rows of table skill; HDBSCAN has not seen the new ones."""
        unseen: Row = {"hdbscan_label": -1, "strength": 0.0, "map_x": None, "map_y": None}
        rows = []
        for key, members in self.members.items():
            for group in members:
                kept = self._skills.get(group.survivor, {})
                row: Row = {name: kept.get(name, value) for name, value in unseen.items()}
                row["skill_id"], row["name"] = group.skill_id, group.name
                row["cluster_id"], row["count"] = self._ids[key], self._counts[group.name]
                row["rare"] = len(members) == 1 and row["hdbscan_label"] < 0
                rows.append(row)
        return rows
