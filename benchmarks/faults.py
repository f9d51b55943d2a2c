"""One fault after another in real runs of the miniature: what is seen, and does it go on?

    python benchmarks/faults.py                     all of them, about forty minutes on two cores
    python benchmarks/faults.py --only disk,clock   those whose name has one of these words

Every run has a small plan. One engine of this script's own stands for the servers of a site, behind
a proxy that counts replies and fails as told (tests/faulty.py); the students' engines, and in one
run the teacher's, are localism's own. Each run is completed by the same command. Prints a table and
one JSON line; saves benchmarks/results/faults.json. Disks are tmpfs mounts, and the clock is moved
for the processes of a run alone: what this machine does not allow is skipped and said.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import faulty  # noqa: E402  (tests/ is no package)
import tmpfs  # noqa: E402
from engines import _Run, embedded_config  # noqa: E402
from pipeline import LIMIT_SECONDS, run_all  # noqa: E402

from localism import __version__, lock, reader  # noqa: E402
from localism.processes import session_processes  # noqa: E402
from localism.records import STAGES  # noqa: E402
from localism.serving.server import serve  # noqa: E402

TINY = (
    "extract.topics=3", "extract.skills_per_topic=5", "extract.seed_examples=4",
    "extract.max_rounds=2", "mix.train=12", "mix.dev=4", "mix.test=4", "pick.bootstrap=100",
)  # fmt: skip
PARTS = ("accepted", "rejected", "failed", "pending")
KEYS = {
    "turn": "turn_id", "candidate": "mix_id", "answer": "answer_id", "judgment": "judgment_id",
    "verdict": "mix_id || gate", "skill_label": "label_id", "mix": "mix_id",
}  # fmt: skip
# Loaded before the C library: the wall clock of a process, moved by the seconds that a file names.
# (libfaketime 0.9.10 makes every sleep of Python 3.11 fail.)
MOVED_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long long moved(void) {
  long long seconds = 0;
  FILE *file = fopen(getenv("MOVED_CLOCK"), "r");
  if (file) { if (fscanf(file, "%lld", &seconds) != 1) seconds = 0; fclose(file); }
  return seconds;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = real(clock, now);
  int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
  if (!failed && is_wall) now->tv_sec += moved();
  return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *out) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (out) *out = exact.tv_sec;
  return exact.tv_sec;
}
"""
FAULT_SECONDS = 6.0
# Where a fault has nothing to do with what comes behind, the run is completed as far as this.
UNTIL = ("--until", "curate")
DAYS = 400


class Skipped(Exception):
    """This machine does not allow the fault; says why."""


@dataclass
class Call:
    """One start of the command."""

    code: int
    seconds: float
    said: list[str]
    """Its last lines, or the three of an error."""


@dataclass
class Outcome:
    """One row of the result."""

    fault: str
    injected: str
    calls: list[Call] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""
    books_balanced: bool | None = None
    failed_rows: int | None = None
    keys_twice: int | None = None
    turns_paid_twice: int | None = None


class Site:
    """The engine and the proxy that all runs share."""

    def __init__(self, proxy: faulty.Proxy, key: Path, work: Path) -> None:
        self.proxy, self.key, self.work = proxy, key, work

    def command(self, folder: Path, *more: str) -> list[str]:
        """run-all on the site's teacher."""
        endpoints = json.dumps([self.proxy.url])
        own = [
            f"teacher.endpoints={endpoints}",
            "teacher.path=",
            f"teacher.api_key_file={self.key}",
        ]
        return run_all(folder, *sets((*TINY, *own)), *more)


def sets(values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in ("--set", value)]


# ---- one start of the command --------------------------------------------------------------


def start(command: list[str], **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def call(
    command: list[str], when: dict[str, Callable[[Any], None]] | None = None, **environment: str
) -> Call:
    """Run it to its end. `when`: what to do with the process once a line has these words."""
    began, todo, lines = time.monotonic(), dict(when or {}), []
    child = start(command, **environment)
    assert child.stderr is not None
    for line in child.stderr:
        lines.append(line.rstrip())
        for words in [words for words in todo if words in line]:
            threading.Thread(target=todo.pop(words), args=(child,)).start()
    code = child.wait(LIMIT_SECONDS)
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    return Call(code, round(time.monotonic() - began, 1), lines[errors[-1] if errors else -2 :])


def at(stage: str) -> str:
    """How a stage's beginning is said."""
    return f"[{STAGES.index(stage) + 1}/{len(STAGES)}] {stage:<10} started"


def judge_of(outcome: Outcome, folder: Path, replies: int | None = None) -> None:
    """Count what a run holds in the end. replies: that the site gave to it."""
    books = reader.read(folder, "FROM books").as_dicts()
    ended = "SELECT DISTINCT stage FROM event WHERE kind = 'stage_finished'"
    done = {row[0] for row in reader.read(folder, ended).rows}
    outcome.books_balanced = bool(books) and not any(
        book["planned"] != sum(book[part] for part in PARTS)
        or (book["pending"] and book["stage"].partition("/")[0] in done)
        for book in books
    )
    outcome.failed_rows = sum(book["failed"] for book in books)
    twice = "SELECT count(*) - count(DISTINCT {key}) FROM {name}"
    outcome.keys_twice = sum(
        reader.read(folder, twice.format(key=key, name=name)).rows[0][0]
        for name, key in KEYS.items()
    )
    if replies is not None:
        own = "SELECT count(*) FROM turn WHERE role <> 'student'"
        outcome.turns_paid_twice = replies - reader.read(folder, own).rows[0][0]


def complete(site: Site, outcome: Outcome, folder: Path, replies: int, *more: str) -> None:
    """The same command until it ends well; then what is there is counted."""
    for _ in range(3):
        outcome.calls.append(call(site.command(folder, *more)))
        if outcome.calls[-1].code == 0:
            break
    judge_of(outcome, folder, site.proxy.replies - replies)


def until(condition: Callable[[], bool], seconds: float = 300.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# ---- faults --------------------------------------------------------------------------------


def outages(site: Site, outcome: Outcome) -> None:
    """Every kind of failing server while one run goes through all its stages."""
    folder, before, ended = site.work / "runs/outages", site.proxy.replies, threading.Event()
    kinds = faulty.GARBAGE | {
        "500": faulty.status(500), "reset": faulty.reset,
        "429 with Retry-After": faulty.status(429, retry_after="2"),
    }  # fmt: skip
    failed: dict[str, int] = {}

    def one_after_another() -> None:
        for name, fault in kinds.items():
            if not until(lambda: ended.is_set() or site.proxy.passed > passed[0]):
                return
            earlier = site.proxy.failed
            site.proxy.fault = fault
            until(lambda earlier=earlier: ended.is_set() or site.proxy.failed > earlier)
            ended.wait(FAULT_SECONDS)
            site.proxy.fault, passed[0] = None, site.proxy.passed
            failed[name] = site.proxy.failed - earlier

    passed = [site.proxy.passed]
    thread = threading.Thread(target=one_after_another)
    thread.start()
    outcome.calls.append(call(site.command(folder, "--set", "mix.train=60", *UNTIL)))
    ended.set()
    thread.join()
    site.proxy.fault = None
    outcome.detail["requests_failed"] = failed
    judge_of(outcome, folder, site.proxy.replies - before)
    away = "SELECT count(*) FROM event WHERE kind = 'endpoint_away'"
    outcome.detail["set_aside"] = reader.read(folder, away).rows[0][0]


def minute_of_500(site: Site, outcome: Outcome) -> None:
    """All answers are 500 for a minute, from the middle of generate on."""
    folder, before = site.work / "runs/minute", site.proxy.replies
    fail = {at("generate"): lambda _: site.proxy.fail_for(60.0, faulty.status(500))}
    outcome.calls.append(call(site.command(folder, *UNTIL), fail))
    complete(site, outcome, folder, before, *UNTIL)


def silent(site: Site, outcome: Outcome) -> None:
    """The only endpoint takes connections and answers nothing, from the start."""
    folder, before = site.work / "runs/silent", site.proxy.replies
    site.proxy.fault = faulty.silence
    outcome.calls.append(call(site.command(folder, *UNTIL)))
    site.proxy.fault = None
    complete(site, outcome, folder, before, *UNTIL)


def sigterm(site: Site, outcome: Outcome) -> None:
    """SIGTERM as soon as each stage has begun."""
    folder, before = site.work / "runs/sigterm", site.proxy.replies
    delays = outcome.detail.setdefault("seconds_to_end", {})
    for stage in STAGES:

        def end(child: Any, stage: str = stage) -> None:
            time.sleep(0.5 if stage not in ("mix", "cluster", "curate", "report") else 0.0)
            began = time.monotonic()
            child.send_signal(signal.SIGTERM)
            child.wait()
            delays[stage] = round(time.monotonic() - began, 1)

        outcome.calls.append(call(site.command(folder), {at(stage): end}))
    time.sleep(1)
    outcome.detail["left_behind"] = len(left_behind(folder))
    complete(site, outcome, folder, before)


def left_behind(folder: Path) -> list[str]:
    """Processes whose environment names the run."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{folder}/".encode() in environment.read_bytes():
                found.append(environment.parent.name)
        except OSError:
            pass  # it ended meanwhile
    return found


def trainer_killed(site: Site, outcome: Outcome) -> None:
    """kill -9 of the training process: in its first epoch, and after the first checkpoint."""
    folder, before = site.work / "runs/trainer", site.proxy.replies
    longer = ("--set", "train.epochs=8", "--until", "train")
    moments = (
        lambda: '"step": 1,' in text_of(folder / "train/log.jsonl"),
        lambda: (folder / "checkpoints/epoch-01").exists(),
    )
    for moment in moments:

        def kill(_: Any, moment: Callable[[], bool] = moment) -> None:
            until(moment)
            for pid in trainers(folder):
                os.kill(pid, signal.SIGKILL)

        outcome.calls.append(call(site.command(folder, *longer), {at("train"): kill}))
    complete(site, outcome, folder, before, *longer)


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def trainers(folder: Path) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", f"localism.training.sft .*{folder.name}/"], capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split()]


def engine_killed(site: Site, outcome: Outcome, kills: int = 20) -> None:
    """kill -9 of the engine, again and again, each time after it has answered something."""
    folder, killed, ended = site.work / "runs/engine", [0], threading.Event()
    big = sets((*TINY, "mix.train=120"))

    def turns() -> int:
        return int(reader.read(folder, "SELECT count(*) FROM turn").rows[0][0])

    def kill() -> None:
        while killed[0] < kills and not ended.is_set():
            time.sleep(0.5)
            try:
                known = turns()
                until(lambda known=known: ended.is_set() or turns() > known)
                for record in folder.glob("logs/engine-*.json"):
                    session = json.loads(record.read_text())["session"]
                    # The keeper is the first; it must live to end what a dead server leaves.
                    servers = [pid for pid in session_processes(session) if pid != session]
                    for pid in servers[:1]:
                        os.kill(pid, signal.SIGKILL)
                        killed[0] += 1
            except Exception:  # the run has not begun, or is between two engines
                continue

    thread = threading.Thread(target=kill)
    thread.start()
    outcome.calls.append(call(run_all(folder, *big, *UNTIL)))
    ended.set()
    thread.join()
    while outcome.calls[-1].code and len(outcome.calls) < 4:
        outcome.calls.append(call(run_all(folder, *big, *UNTIL)))
    outcome.detail["kills"] = killed[0]
    died = "SELECT count(*) FROM event WHERE kind = 'engine_died'"
    outcome.detail["engine_died_events"] = reader.read(folder, died).rows[0][0]
    judge_of(outcome, folder)


@contextmanager
def disk(site: Site, name: str, size: str) -> Iterator[Path]:
    folder = site.work / name
    folder.mkdir()
    if why := tmpfs.refusal(folder, size):
        raise Skipped(f"no small disk can be mounted: {why}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path, leave: int) -> None:
    """Leave so many bytes of a disk."""
    with (folder / "ballast").open("wb") as ballast:
        while (free := shutil.disk_usage(folder).free) > leave:
            ballast.write(b"x" * min(1 << 20, free - leave))
            ballast.flush()


def disk_full(site: Site, outcome: Outcome) -> None:
    """The run's disk fills up in extract, in generate, while a checkpoint is written, at report."""
    before = site.proxy.replies
    with disk(site, "small", "400m") as small:
        folder = small / "runs/full"
        for stage, leave in (
            ("extract", 0),
            ("generate", 100_000),
            ("train", 6 << 20),
            ("report", 0),
        ):

            def stuff(_: Any, stage: str = stage, leave: int = leave) -> None:
                if stage == "train":  # the disk is checked before it begins
                    until(lambda: '"step": 1,' in text_of(folder / "train/log.jsonl"))
                fill(small, leave)

            outcome.calls.append(call(site.command(folder), {at(stage): stuff}))
            torn = sorted(path.name for path in folder.glob("checkpoints/*"))
            outcome.detail[f"checkpoints after {stage}"] = torn
            (small / "ballast").unlink(missing_ok=True)
        complete(site, outcome, folder, before)


def other_disks_full(site: Site, outcome: Outcome) -> None:
    """/tmp is full, and so is the disk that stderr goes to."""
    before, folder = site.proxy.replies, site.work / "runs/others"
    with disk(site, "tmp", "1m") as small:
        fill(small, 0)
        command = [*site.command(folder), "--until", "extract"]
        with (small / "ballast").open("a") as log:
            code = subprocess.run(
                command, stderr=log, stdout=subprocess.DEVNULL, timeout=LIMIT_SECONDS
            ).returncode
        outcome.detail["exit code with stderr on a full disk"] = code
        outcome.calls.append(call(site.command(folder, *UNTIL), TMPDIR=str(small)))
    complete(site, outcome, folder, before, *UNTIL)


def read_only(site: Site, outcome: Outcome) -> None:
    """The disk is read-only: for a new run, and for one that was begun."""
    before = site.proxy.replies
    with disk(site, "readonly", "400m") as small:
        folder = small / "runs/ro"
        tmpfs.remount(small, "ro")
        outcome.calls.append(call(site.command(folder)))
        tmpfs.remount(small, "rw")
        outcome.calls.append(call([*site.command(folder), "--until", "mix"]))
        tmpfs.remount(small, "ro")
        outcome.calls.append(call(site.command(folder)))
        tmpfs.remount(small, "rw")
        complete(site, outcome, folder, before, *UNTIL)


def built_clock(work: Path) -> Path:
    """MOVED_CLOCK as a library."""
    compiler = shutil.which("cc")
    if not compiler:
        raise Skipped("there is no C compiler")
    source, library = work / "clock.c", work / "clock.so"
    source.write_text(MOVED_CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def clock(site: Site, outcome: Outcome) -> None:
    """The clock jumps: 400 days back and forth within generate, and between two calls."""
    folder, moved, before = site.work / "runs/clock", site.work / "moved", site.proxy.replies
    moved.write_text("0")
    faked = {"LD_PRELOAD": str(built_clock(site.work)), "MOVED_CLOCK": str(moved)}

    def jump(days: int) -> Callable[[Any], None]:
        return lambda _: moved.write_text(str(86_400 * days)) and None

    back_and_forth = {at("cluster"): jump(-DAYS), at("generate"): jump(DAYS)}
    until_curate = [*site.command(folder), "--until", "curate"]
    outcome.calls.append(call(until_curate, back_and_forth, **faked))
    jump(-DAYS)(None)
    outcome.calls.append(call([*site.command(folder), "--until", "train"], **faked))
    order = "SELECT stage FROM event WHERE kind = 'stage_finished' ORDER BY happened_at"
    outcome.detail["finished in this order"] = [row[0] for row in reader.read(folder, order).rows]
    complete(site, outcome, folder, before, "--until", "train")


def dead_node(site: Site, outcome: Outcome) -> None:
    """A lock that a file server keeps for a dead machine; and one whose holder fell silent."""
    folder, before = site.work / "runs/locked", site.proxy.replies
    outcome.calls.append(call([*site.command(folder), "--until", "mix"]))
    there = lock.Holder("node7", "another boot", 4711, 99, "ada", "localism run-all --run locked")
    file = folder / lock.LOCK
    file.write_text(json.dumps(asdict(there)))
    os.utime(file, (time.time() - 600,) * 2)
    import fcntl

    with file.open() as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        outcome.calls.append(call(site.command(folder)))
        fix = outcome.calls[-1].said[-1]
        subprocess.run(fix[fix.index("(cd ") :], shell=True, check=True)
        outcome.calls.append(call([*site.command(folder), "--until", "generate"]))
    file.write_text(json.dumps(asdict(there)))
    os.utime(file, (time.time() - lock.ALIVE_SECONDS + 20,) * 2)
    complete(site, outcome, folder, before, *UNTIL)


FAULTS: dict[str, Callable[[Site, Outcome], None]] = {
    "disk full": disk_full,
    "trainer killed twice": trainer_killed,
    "disk read-only": read_only,
    "lock of a dead node": dead_node,
    "endpoint: 500 for a minute": minute_of_500,
    "clock jumps": clock,
    "engine killed 20 times": engine_killed,
    "sigterm in every stage": sigterm,
    "disk full: /tmp, and the log's": other_disks_full,
    "endpoint: accepts and never answers": silent,
    "endpoint: garbage of twelve kinds, 500, resets, 429": outages,
}


@contextmanager
def site_in(work: Path) -> Iterator[Site]:
    """A started engine with the embedded teacher, and the proxy before it."""
    key = work / "key"
    with _Run(work / "site", embedded_config()) as run, asyncio.Runner() as runner:
        serving = serve(run.context, "teacher", "generate")
        client = runner.run(serving.__aenter__())
        runner.run(client.ready())
        assert client.engine is not None
        key.write_text(client.engine.key)
        proxy = faulty.Proxy(client.engine.url)
        try:
            yield Site(proxy, key, work)
        finally:
            proxy.close()
            runner.run(serving.__aexit__(None, None, None))


def measured(name: str, site: Site) -> Outcome:
    outcome = Outcome(name, (FAULTS[name].__doc__ or "").strip())
    try:
        FAULTS[name](site, outcome)
    except Skipped as why:
        outcome.skipped = str(why)
    codes = ", ".join(f"{one.code} ({one.seconds:.0f} s)" for one in outcome.calls)
    print(f"{name}\n  {outcome.injected}\n  exit codes {codes}; {outcome.skipped}")
    for one in outcome.calls:
        if one.code:
            print("\n".join(f"    | {line[:200]}" for line in one.said))
    print(
        f"  books balanced {outcome.books_balanced}, failed rows {outcome.failed_rows}, keys twice "
        f"{outcome.keys_twice}, turns paid twice {outcome.turns_paid_twice}; {outcome.detail}\n",
        flush=True,
    )
    return outcome


def main() -> None:
    """One fault after another; a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--but", default="", help="words of names to leave out")
    parser.add_argument("--only", default="", help="words of names, with commas")
    options = parser.parse_args()
    only, but = (set(filter(None, text.split(","))) for text in (options.only, options.but))
    chosen = [name for name in FAULTS if not only or any(word in name for word in only)]
    chosen = [name for name in chosen if not any(word in name for word in but)]
    results = ROOT / "benchmarks" / "results" / "faults.json"
    known = json.loads(results.read_text())["faults"] if results.exists() else []
    rows = {row["fault"]: row for row in known}
    work, line = Path(tempfile.mkdtemp(prefix="faults-")), ""
    with site_in(work) as site:
        for name in chosen:
            rows[name] = asdict(measured(name, site)) | {"date": str(date.today())}
            ordered = [rows[name] for name in FAULTS if name in rows]
            faults = json.loads(json.dumps(ordered).replace(str(work), "WORK"))
            line = json.dumps({"benchmark": "faults", "version": __version__, "faults": faults})
            results.write_text(line + "\n")
    print(line)
    shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
