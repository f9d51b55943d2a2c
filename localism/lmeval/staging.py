"""Brought-in benchmark data -> checked Parquet files with a manifest, one folder a task.

Each task is a folder of its own, so that one can be added or replaced alone. Nothing in it names a
place on this machine: a staged folder may be moved, copied and mounted read-only.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from localism.errors import ConfigError
from localism.lmeval import sources
from localism.lmeval.tasks import HARNESS, TASKS, Row, Task, known

MANIFEST = "manifest.json"
SAMPLES = Path(__file__).parent / "samples"
"""A few items of our own for each task, in the benchmarks' file formats."""
COMMAND = "localism evaluate stage --suite lm-eval --from DIR"


@dataclass(frozen=True)
class Part:
    """One split of one configuration."""

    config: str | None
    """As on the Hub; of mmlu the subject."""
    split: str
    """As on the Hub."""
    rows: int
    """How many."""
    file: str
    """Its Parquet file, relative to the task's folder."""
    sha256: str
    """Of that file."""


@dataclass(frozen=True)
class StagedTask:
    """A task whose data are ready."""

    name: str
    """As in tasks.TASKS."""
    folder: Path
    """Where its Parquet files are."""
    parts: tuple[Part, ...]
    """All of them."""
    missing: tuple[str, ...]
    """Subjects that were not brought in."""
    fingerprint: str
    """SHA-256 of all rows in order, of the columns that are read."""
    revision: str | None
    """Commit of the Hub, where `hf download` noted it."""
    is_sample: bool
    """Our own few items, not the benchmark."""

    @property
    def items(self) -> int:
        """How many are evaluated."""
        split = TASKS[self.name].split
        return sum(part.rows for part in self.parts if part.split == split)

    @property
    def note(self) -> str | None:
        """How these data differ from the benchmark; None where its size is right."""
        task = TASKS[self.name]
        if self.is_sample:
            return f"{self.items} items of localism's own, not the benchmark"
        said = []
        if self.missing:
            said.append(f"{len(self.missing)} of {len(task.subjects)} subjects are not staged")
        if self.items != task.items:
            said.append(f"{self.items:,} items, the benchmark has {task.items:,}")
        return "; ".join(said) or None


@dataclass(frozen=True)
class Summary:
    """What a call of stage() did."""

    staged: tuple[StagedTask, ...]
    """Tasks that are ready now."""
    absent: tuple[str, ...]
    """Tasks that were not asked for by name and have no folder in the source."""

    def __str__(self) -> str:
        lines = [
            f"{one.name}: {one.items:,} items, fingerprint {one.fingerprint[:16]}"
            + (f" ({one.note})" if one.note else "")
            for one in self.staged
        ]
        lines += [
            f"mmlu lacks: {', '.join(one.missing)}"
            for one in self.staged
            if one.missing and not one.is_sample
        ]
        if self.absent:
            lines.append(f"not there: {', '.join(self.absent)}")
        return "\n".join(lines)


def stage(source: Path, staged: Path, tasks: Sequence[str] = ()) -> Summary:
    """Check the data of these tasks (or of all that are there) and write them below `staged`.

    A task that was staged before is replaced when its new data are found right, others stay.
    Raises ConfigError naming the missing file, split or column, or the first wrong row, each with
    the fix; UsageError for an unknown task.
    """
    asked = [known(name) for name in dict.fromkeys(tasks)]
    _check_source(source)
    homes = {task.name: sources.folder_of(source, task) for task in asked or TASKS.values()}
    done = [
        _stage_task(TASKS[name], home, staged, is_sample=_is_samples(source))
        for name, home in homes.items()
        if home is not None
    ]
    absent = tuple(name for name, home in homes.items() if home is None)
    if absent and (asked or not done):
        raise _no_folder(source, TASKS[absent[0]])
    return Summary(tuple(done), absent)


def load(staged: Path, name: str) -> StagedTask:
    """A staged task. Raises ConfigError when it is not staged, or was altered since."""
    task, folder = known(name), staged / name
    try:
        said = json.loads((folder / MANIFEST).read_text())
        parts = tuple(Part(**part) for part in said["parts"])
        found = StagedTask(
            name, folder, parts, tuple(said["missing"]), said["fingerprint"], said["revision"],
            said["is_sample"],
        )  # fmt: skip
        changed = [part.file for part in parts if sources.sha256(folder / part.file) != part.sha256]
    except FileNotFoundError as absent:
        if Path(absent.filename) == folder / MANIFEST:
            raise ConfigError(
                f"task {name} is not staged",
                where=str(folder),
                fix=f"on a machine with a network: {task.download}; then here: {COMMAND}",
            ) from None
        changed = [Path(absent.filename).name]
    except (ValueError, KeyError, TypeError) as broken:
        changed = [f"{MANIFEST} ({broken})"]
    if changed:
        raise ConfigError(
            f"the staged task {name} was altered or is incomplete: {changed[0]}",
            where=str(folder),
            fix=f"stage it again: {COMMAND}",
        )
    return found


# ---- one task ------------------------------------------------------------------------------------


def _stage_task(task: Task, home: Path, staged: Path, *, is_sample: bool) -> StagedTask:
    present = [config for config in task.configs if _is_here(task, home, config)]
    if not present:
        raise _no_split(task, home, task.configs[0], task.split)
    work = staged / f".{task.name}.new"
    shutil.rmtree(work, ignore_errors=True)
    digest = hashlib.sha256()
    parts: list[Part] = []
    files: list[Path] = []
    for config in present:
        for split in task.splits:
            found = sources.find(home, config, split).files
            if not found:
                raise _no_split(task, home, config, split)
            rows = [row for file in found for row in _checked(task, file)]
            parts.append(_write(work, config, split, rows, digest))
            files += found
    missing = tuple(name for name in task.subjects if name not in present)
    revisions = {sources.revision(home, file) for file in files} - {None}
    result = StagedTask(
        task.name, staged / task.name, tuple(parts), missing, digest.hexdigest(),
        ", ".join(sorted(map(str, revisions))) or None, is_sample,
    )  # fmt: skip
    _write_manifest(work, task, result, home, files)
    shutil.rmtree(result.folder, ignore_errors=True)
    os.replace(work, result.folder)
    return result


def _is_here(task: Task, home: Path, config: str | None) -> bool:
    """Of tasks with subjects only those count that something is there of."""
    return not task.subjects or sources.has_config(home, str(config))


def _checked(task: Task, file: Path) -> Iterator[Row]:
    for number, row in sources.rows(file, task.columns):
        problem = task.check(row)
        if problem:
            raise ConfigError(
                f"not a row of {task.name}: {problem}",
                where=f"{file}, row {number}",
                fix=f"bring in the files of {task.hub} as they are: {task.download}",
            )
        yield row


def _write(
    folder: Path,
    config: str | None,
    split: str,
    rows: Sequence[Row],
    digest: "hashlib._Hash",
) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    if not rows:
        raise ConfigError(
            f"split {split} has no rows", where=str(config or split), fix="fetch it again"
        )
    name = f"{config or 'data'}/{split}.parquet"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        text = json.dumps([config, split, row], sort_keys=True, ensure_ascii=False)
        digest.update(text.encode() + b"\n")
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), folder / name)
    return Part(config, split, len(rows), name, sources.sha256(folder / name))


def _write_manifest(
    folder: Path, task: Task, staged: StagedTask, home: Path, files: Sequence[Path]
) -> None:
    content = {
        "task": task.name,
        "hub": task.hub,
        "revision": staged.revision,
        "harness": HARNESS,
        "items": staged.items,
        "missing": staged.missing,
        "fingerprint": staged.fingerprint,
        "is_sample": staged.is_sample,
        "staged_on": date.today().isoformat(),
        "files": {str(file.relative_to(home)): sources.sha256(file) for file in files},
        "parts": [asdict(part) for part in staged.parts],
    }
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")


# ---- what is wrong with a source -----------------------------------------------------------------


def _check_source(source: Path) -> None:
    if not source.is_dir():
        raise ConfigError(
            "there is no such folder",
            where=f"--from {source}",
            fix="name the folder that holds a folder for each task: arc_challenge, piqa, ...",
        )


def _is_samples(source: Path) -> bool:
    return source.resolve() == SAMPLES.resolve()


def _no_folder(source: Path, task: Task) -> ConfigError:
    here = ", ".join(sorted(path.name for path in source.iterdir())[:8]) or "empty"
    return ConfigError(
        f"no folder with the data of {task.name}",
        where=f"{source} ({here})",
        fix=f"call it {task.name}; it holds what this fetches: {task.download}",
    )


def _no_split(task: Task, home: Path, config: str | None, split: str) -> ConfigError:
    looked_for = sources.find(home, config, split).looked_for
    here = ", ".join(str(path.relative_to(home)) for path in sources.data_files(home)[:6])
    return ConfigError(
        f"{task.name}{f' ({config})' if task.subjects else ''} has no split {split}",
        where=f"{home} ({here or 'no Parquet or JSONL file'})",
        fix=f"it needs {looked_for}; fetch it whole: {task.download}",
    )
