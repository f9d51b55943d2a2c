"""The embedded models against their bars: a table, a JSON line, benchmarks/results/embedded.json.

    python benchmarks/embedded.py                        # test split, three sampling seeds
    python benchmarks/embedded.py --split dev --quick    # one seed, fewer items

Items are fresh: skill pairs and verb-noun combinations of the test split, which training never
draws and which chose nothing. Skills are looked for by word stems (skill_names.mentions), not by
meaning. Real vLLM in this process, real TRL in another.
"""

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
os.environ.update(ENVIRONMENT)

from localism.embedded.conversation import LABELS, example_text, query_type_record, render  # noqa: E402
from localism.embedded.flaws import draw_flawed  # noqa: E402
from localism.embedded.grammar import Example, draw_answer, draw_example, draw_skills  # noqa: E402
from localism.embedded.world import QUERY_TYPES, TOPICS  # noqa: E402
from localism.prompting.packs import Pack, load_pack  # noqa: E402
from localism.skill_names import mentions  # noqa: E402

EMBEDDED = ROOT / "localism" / "embedded"
JUDGE_KINDS = (
    "missing",
    "swapped",
    "near_noun",
    "off_topic",
    "truncated",
    "repeated",
    "garbled",
    "short",
    "junk",
    "notes",
    "empty",
)
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Parsed:
    """A draft taken apart."""

    instruction: str
    response: str


@dataclass
class Bars:
    """Figures by name, each with one value a sampling seed."""

    values: dict[str, list[float]] = field(default_factory=dict)
    bounds: dict[str, tuple[str, float]] = field(default_factory=dict)

    def add(self, name: str, value: float, bound: tuple[str, float] | None = None) -> None:
        """Note one seed's figure and, where there is one, its bar: ('>=' or '<=', value)."""
        self.values.setdefault(name, []).append(value)
        if bound:
            self.bounds[name] = bound

    def reached(self, name: str) -> bool | None:
        """Whether the mean of the seeds meets the bar; None without a bar."""
        if name not in self.bounds:
            return None
        sign, limit = self.bounds[name]
        mean = statistics.fmean(self.values[name])
        return mean >= limit if sign == ">=" else mean <= limit

    def table(self) -> str:
        """One line a figure."""
        lines = [f"{'figure':46} {'mean':>7} {'low':>7} {'high':>7}  bar"]
        for name, values in self.values.items():
            sign, limit = self.bounds.get(name, ("", 0.0))
            bar = f"{sign} {limit:g} {'met' if self.reached(name) else 'MISSED'}" if sign else ""
            mean = statistics.fmean(values)
            lines.append(f"{name:46} {mean:7.3f} {min(values):7.3f} {max(values):7.3f}  {bar}")
        return "\n".join(lines)


# ---- the engine --------------------------------------------------------------------------------


class Engine:
    """vLLM in this process: sampled replies, and the probability of a judge's first label."""

    def __init__(self, folder: Path) -> None:
        from vllm import LLM

        self.llm = LLM(
            model=str(folder),
            enforce_eager=True,
            max_model_len=1024,
            block_size=32,
            distributed_executor_backend="uni",
            max_num_seqs=128,
            max_num_batched_tokens=8192,
            # A seeded request whose prompt is split over two batches stops vLLM on a CPU.
            enable_chunked_prefill=False,
        )
        self.tokenizer = self.llm.get_tokenizer()

    def chat(
        self,
        conversations: Sequence[Messages],
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
    ) -> list[str]:
        """One reply a conversation; a reply cut by max_tokens loses its end, as in a run."""
        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=temperature,
                top_p=top_p,
                max_tokens=max_tokens,
                seed=seed * 100_003 + index,
            )
            for index in range(len(conversations))
        ]
        outputs = self.llm.chat(list(conversations), params, use_tqdm=False)
        return [output.outputs[0].text.strip() for output in outputs]

    def first_wins(self, prompts: Sequence[str]) -> list[float]:
        """P(first label) over the two labels, from exact log-probabilities."""
        import math

        from vllm import SamplingParams

        ids = [self.tokenizer.encode(label, add_special_tokens=False)[0] for label in LABELS]
        params = SamplingParams(temperature=0.0, max_tokens=1, logprob_token_ids=ids)
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        shares = []
        for output in self.llm.chat(chats, params, use_tqdm=False):
            found = output.outputs[0].logprobs[0]
            gap = found[ids[1]].logprob - found[ids[0]].logprob
            shares.append(1 / (1 + math.exp(gap)))
        return shares

    def load_weights(self, folder: Path) -> None:
        """Answer with another checkpoint of the same shape from now on."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        self.llm.reset_prefix_cache()

    def likelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Mean log-probability of each response after its instruction, its end token included."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0)
        prompts, starts = [], []
        for instruction, response in pairs:
            asked = [{"role": "user", "content": instruction}]
            whole = [*asked, {"role": "assistant", "content": response}]
            head = self.tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, return_dict=False
            )
            prompts.append(
                {"prompt_token_ids": self.tokenizer.apply_chat_template(whole, return_dict=False)}
            )
            starts.append(len(head))
        means = []
        for output, start in zip(
            self.llm.generate(prompts, params, use_tqdm=False), starts, strict=True
        ):
            ids = output.prompt_token_ids
            found = [output.prompt_logprobs[i][ids[i]].logprob for i in range(start, len(ids))]
            means.append(statistics.fmean(found))
        return means


# ---- bars 1 to 4: the teacher ------------------------------------------------------------------


def parse(pack: Pack, text: str) -> Parsed | None:
    """Instruction and response, or None where a marker or a part is missing."""
    pattern = (
        rf"{re.escape(pack.instruction_marker)}\n(.+?)\n"
        rf"{re.escape(pack.response_marker)}\n(.+)"
    )
    found = re.fullmatch(pattern, text.strip(), re.S)
    return Parsed(found[1].strip(), found[2].strip()) if found else None


def covers(skills: Sequence[str], text: str) -> bool:
    """Whether every skill is mentioned."""
    return all(mentions(skill, text) for skill in skills)


def share(claims: Sequence[bool]) -> float:
    """Part of the claims that hold."""
    return sum(claims) / len(claims)


def _draft_messages(skills: Sequence[str], kind: str) -> Messages:
    values = {"skills": list(skills), "query_type": query_type_record(kind)}
    return [{"role": "user", "content": render("draft", **values)}]


def measure_drafts(engine: Engine, bars: Bars, split: str, seed: int, count: int) -> None:
    """Bar 1: parse, skills in both parts, distinct instructions, no repeated lines."""
    rng = Random(f"drafts {split} {seed}")
    pack = load_pack("compact")
    sampling = pack.turns[0].sampling
    for name, size, new, bound in (
        ("held-out pairs", 2, 0.0, 0.95),
        ("new combinations", 2, 1.0, 0.90),
        ("one skill", 1, 1.0, 0.90),
        ("three skills", 3, 0.0, 0.90),
    ):
        drawn = [draw_skills(rng, size, split, new) for _ in range(count)]
        chats = [_draft_messages(skills, rng.choice(tuple(QUERY_TYPES))) for skills in drawn]
        texts = engine.chat(chats, sampling.temperature, sampling.top_p, sampling.max_tokens, seed)
        parsed = [parse(pack, text) for text in texts]
        whole = [item for item in parsed if item]
        both = [
            bool(p) and covers(skills, p.instruction) and covers(skills, p.response)
            for p, skills in zip(parsed, drawn, strict=True)
        ]
        lines = [[ln for ln in item.response.split("\n") if ln] for item in whole]
        bars.add(f"1 {name}: parse", len(whole) / count, (">=", 0.99))
        bars.add(f"1 {name}: all skills in both parts", share(both), (">=", bound))
        distinct = len({item.instruction for item in whole}) / count
        bars.add(f"1 {name}: distinct instructions", distinct, (">=", 0.95))
        unrepeated = share([len(set(part)) == len(part) for part in lines])
        bars.add(f"1 {name}: no repeated line", unrepeated, (">=", 0.98))


def listed(text: str) -> list[str]:
    """Names of a numbered list."""
    return [line.split(". ", 1)[1] for line in text.split("\n") if re.match(r"\d+\. \S", line)]


def _collect(engine: Engine, template: str, wanted: int, seed: int, **values: str) -> list[str]:
    """Ask for names until there are enough, showing those already listed; at most five times."""
    sampling = load_pack("compact").extract_sampling
    names: list[str] = []
    for turn in range(5):
        count = min(8, wanted - len(names))
        if count <= 0:
            break
        prompt = render(template, count=count, known=names, **values)
        chat = [[{"role": "user", "content": prompt}]]
        reply = engine.chat(
            chat, sampling.temperature, sampling.top_p, sampling.max_tokens, seed + turn
        )[0]
        found = [name.split(":")[0].strip() for name in listed(reply)]
        names += [name for name in dict.fromkeys(found) if name not in names]
    return names


def measure_extraction(engine: Engine, bars: Bars, seed: int) -> None:
    """Bar 2: topics, skills of each topic, query types, by the pack's own prompts."""
    topics = _collect(engine, "topics", 24, seed)
    known = [topic for topic in topics if topic in TOPICS]
    skills = {topic: _collect(engine, "skills", 10, seed, topic=topic) for topic in known}
    fitting = [sum(s in TOPICS[topic].skills for s in found) for topic, found in skills.items()]
    asked = sum(len(found) for found in skills.values())
    types = _collect(engine, "query_types", 8, seed)
    bars.add("2 topics found", len(known), (">=", 20))
    bars.add("2 in-topic skills, worst topic", min(fitting, default=0), (">=", 8))
    bars.add("2 skills that belong to their topic", sum(fitting) / max(1, asked))
    bars.add("2 query types found", len([t for t in types if t in QUERY_TYPES]), (">=", 6))


def measure_refine(engine: Engine, bars: Bars, split: str, seed: int, count: int) -> None:
    """Bar 3, first half: critique and refine of flawed and of good drafts, as in a run."""
    rng = Random(f"refine {split} {seed}")
    pack = load_pack("compact")
    for kind in ("missing", "swapped", "near_noun", "truncated", "none"):
        examples = [draw_example(rng, draw_skills(rng, 2, split)) for _ in range(count)]
        drafts = [
            e.answer.text() if kind == "none" else draw_flawed(rng, e, kind).text for e in examples
        ]
        chats: list[Messages] = []
        for example, response in zip(examples, drafts, strict=True):
            chats.append(_draft_messages(example.skills, example.query_type))
            text = example_text(example.instruction, response)
            chats[-1].append({"role": "assistant", "content": text})
        for turn in pack.turns[1:]:
            for chat in chats:
                chat.append(
                    {"role": "user", "content": render(turn.name, skills=[], query_type={})}
                )
            s = turn.sampling
            replies = engine.chat(chats, s.temperature, s.top_p, s.max_tokens, seed)
            for chat, reply in zip(chats, replies, strict=True):
                chat.append({"role": "assistant", "content": reply})
        refined = [parse(pack, chat[-1]["content"]) for chat in chats]
        good = [
            bool(p) and covers(e.skills, p.instruction) and covers(e.skills, p.response)
            for p, e in zip(refined, examples, strict=True)
        ]
        bound = (">=", 0.70) if kind in ("missing", "swapped", "near_noun") else None
        bars.add(f"3 refine of a draft with flaw '{kind}' covers all", share(good), bound)


def is_normal(skills: Sequence[str], text: str) -> bool:
    """The length and coverage check that tells a normal answer from a brief or careless one."""
    return len(text.split()) >= 25 and covers(skills, text)


def measure_quality_prompts(engine: Engine, bars: Bars, split: str, seed: int, count: int) -> None:
    """Bar 3, second half: brief and careless answers are told apart from normal ones."""
    rng = Random(f"quality {split} {seed}")
    examples = [draw_example(rng, draw_skills(rng, 2, split)) for _ in range(count)]
    for name in ("brevity", "junk", "answer"):
        prompts = [
            e.instruction if name == "answer" else render(name, instruction=e.instruction)
            for e in examples
        ]
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        replies = engine.chat(chats, 0.7, 0.95, 256, seed)
        normal = [is_normal(e.skills, r) for e, r in zip(examples, replies, strict=True)]
        told = share(normal) if name == "answer" else 1 - share(normal)
        label = "instruction alone: normal answer" if name == "answer" else f"{name}: told apart"
        bars.add(f"3 {label}", told, (">=", 0.95))


def measure_labels(engine: Engine, bars: Bars, split: str, seed: int, count: int) -> None:
    """No bar: a question's skills, all named and none besides."""
    rng = Random(f"labels {split} {seed}")
    examples = [draw_example(rng, draw_skills(rng, 2, split)) for _ in range(count)]
    chats = [
        [{"role": "user", "content": render("label", instruction=e.instruction)}] for e in examples
    ]
    replies = engine.chat(chats, 0.0, 1.0, 64, seed)
    exact = [set(r.split(", ")) == set(e.skills) for r, e in zip(replies, examples, strict=True)]
    bars.add("- label: exactly the question's skills", share(exact))


@dataclass(frozen=True)
class Pair:
    """One question to the judge: which of two texts answers the instruction better."""

    kind: str
    instruction: str
    good: str
    bad: str


def judge_items(split: str, seed: int, count: int) -> list[Pair]:
    """`count` pairs of every flaw kind, and of two good answers ('equal')."""
    rng = Random(f"judge {split} {seed}")
    pairs = []
    for kind in (*JUDGE_KINDS, "equal"):
        for _ in range(count):
            size = rng.choices([2, 3], [8, 2])[0]
            example = draw_example(rng, draw_skills(rng, size, split))
            other = _other_answer(rng, example)
            bad = other.answer.text() if kind == "equal" else draw_flawed(rng, other, kind).text
            pairs.append(Pair(kind, example.instruction, example.answer.text(), bad))
    return pairs


def _other_answer(rng: Random, example: Example) -> Example:
    """The same question, answered in other words: the flawed text is no copy of the good one."""
    answer = draw_answer(rng, example.skills, example.query_type, example.answer.scene)
    return replace(example, answer=answer)


def measure_judge(engine: Engine, bars: Bars, split: str, seed: int, count: int) -> None:
    """Bar 4: accuracy with both orders averaged, and agreement of the two orders."""
    pairs = judge_items(split, seed, count)
    shown = [
        render("judge", instruction=p.instruction, first=a, second=b)
        for p in pairs
        for a, b in ((p.good, p.bad), (p.bad, p.good))
    ]
    wins = engine.first_wins(shown)
    scores = [(wins[2 * i] + 1 - wins[2 * i + 1]) / 2 for i in range(len(pairs))]
    agree = [(wins[2 * i] > 0.5) == (wins[2 * i + 1] < 0.5) for i in range(len(pairs))]
    real = [i for i, pair in enumerate(pairs) if pair.kind != "equal"]
    bars.add("4 judge: right, all flaws", share([scores[i] > 0.5 for i in real]), (">=", 0.90))
    bars.add("4 judge: same under swap", share([agree[i] for i in real]), (">=", 0.85))
    for kind in JUDGE_KINDS:
        right = [scores[i] > 0.5 for i in real if pairs[i].kind == kind]
        bound = (">=", 0.80) if kind in ("missing", "swapped", "off_topic") else None
        bars.add(f"4 judge: right, {kind}", share(right), bound)
    equal = [abs(s - 0.5) for s, p in zip(scores, pairs, strict=True) if p.kind == "equal"]
    bars.add("4 judge: distance from .5, two good answers", statistics.fmean(equal))


def measure_likelihood_judge(engine: Engine, bars: Bars, split: str, seed: int, count: int) -> None:
    """The stand-in for bar 4: the likelier response wins. It flatters texts of the grammar."""
    pairs = judge_items(split, seed, count)
    scores = engine.likelihoods([(p.instruction, text) for p in pairs for text in (p.good, p.bad)])
    right = [scores[2 * i] > scores[2 * i + 1] for i in range(len(pairs))]
    real = [i for i, pair in enumerate(pairs) if pair.kind != "equal"]
    bars.add("4 likelihood judge: right, all flaws", share([right[i] for i in real]))
    for kind in JUDGE_KINDS:
        chosen = [right[i] for i in real if pairs[i].kind == kind]
        bars.add(f"4 likelihood judge: right, {kind}", share(chosen))


# ---- bar 5: the student ------------------------------------------------------------------------


def teacher_examples(engine: Engine, count: int, seed: int) -> list[dict[str, str]]:
    """`count` accepted examples as a default run makes them: random pairs, parsed, both skills."""
    rng = Random(f"student {seed}")
    pack = load_pack("compact")
    kept: list[dict[str, str]] = []
    while len(kept) < count:
        drawn = [draw_skills(rng, 2) for _ in range(count)]
        chats = [_draft_messages(s, rng.choice(tuple(QUERY_TYPES))) for s in drawn]
        for skills, text in zip(drawn, engine.chat(chats, 0.7, 0.95, 256, seed), strict=True):
            parsed = parse(pack, text)
            if parsed and covers(skills, parsed.instruction) and covers(skills, parsed.response):
                kept.append({"instruction": parsed.instruction, "response": parsed.response})
    return kept[:count]


class Cost(NamedTuple):
    """What a process took, from its start to saved weights."""

    wall_seconds: float
    cpu_seconds: float


def train_student(rows: list[dict[str, str]], out: Path, student: Path, seed: int) -> Cost:
    """TRL SFT in a process of its own, on one thread."""
    (out / "rows.json").write_text(json.dumps(rows))
    script = Path(__file__).with_name("embedded_sft.py")
    command = [
        sys.executable,
        str(script),
        str(student),
        str(out / "rows.json"),
        str(out),
        str(seed),
    ]
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - started, cpu)


def student_coverage(engine: Engine, split: str, seed: int, count: int) -> float:
    """Part of the instructions whose greedy answer shows both skills."""
    rng = Random(f"dev {split} {seed}")
    examples = [draw_example(rng, draw_skills(rng, 2, split)) for _ in range(count)]
    chats = [[{"role": "user", "content": e.instruction}] for e in examples]
    replies = engine.chat(chats, 0.0, 1.0, 256, seed)
    return share([covers(e.skills, r) for e, r in zip(examples, replies, strict=True)])


def measure_student(
    teacher: Engine, bars: Bars, split: str, seeds: Sequence[int], count: int, student: Path
) -> None:
    """Bar 5: both skills before and after training on the teacher's examples."""
    engine = Engine(student)
    for seed in seeds:
        rows = teacher_examples(teacher, 320, seed)
        with tempfile.TemporaryDirectory() as folder:
            cost = train_student(rows, Path(folder), student, seed)
            engine.load_weights(student)
            before = student_coverage(engine, split, seed, count)
            engine.load_weights(Path(folder) / "trained")
            after = student_coverage(engine, split, seed, count)
        bars.add("5 student base: both skills", before, ("<=", 0.05))
        bars.add("5 student trained: both skills", after, (">=", 0.50))
        bars.add("5 student training, wall seconds with imports", cost.wall_seconds, ("<=", 180))
        bars.add("5 student training, CPU-seconds with imports", cost.cpu_seconds)


def measure_size(bars: Bars) -> None:
    """Bar 6, first half: what ships."""
    folders = [EMBEDDED / "teacher", EMBEDDED / "student"]
    total = sum(path.stat().st_size for folder in folders for path in folder.rglob("*"))
    bars.add("6 teacher and student, MB", total / 1e6, ("<=", 20))


# ---- the script --------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> Bars:
    """All figures."""
    bars = Bars()
    count = 30 if options.quick else 100
    teacher = Engine(options.teacher)
    for seed in range(1 if options.quick else 3):
        measures: list[Callable[[], None]] = [
            lambda s=seed: measure_drafts(teacher, bars, options.split, s, count),
            lambda s=seed: measure_extraction(teacher, bars, s),
            lambda s=seed: measure_refine(teacher, bars, options.split, s, count // 2),
            lambda s=seed: measure_quality_prompts(teacher, bars, options.split, s, count),
            lambda s=seed: measure_labels(teacher, bars, options.split, s, count),
            lambda s=seed: measure_judge(teacher, bars, options.split, s, count // 2),
            lambda s=seed: measure_likelihood_judge(teacher, bars, options.split, s, count // 2),
        ]
        for run in measures:
            run()
    if not options.no_student:
        seeds = range(1 if options.quick else 3)
        measure_student(teacher, bars, options.split, seeds, count, options.student)
    measure_size(bars)
    return bars


def record(bars: Bars, options: argparse.Namespace, seconds: float) -> dict[str, object]:
    """What is saved: figures, bars, and where and when they were measured."""
    import torch
    import vllm

    return {
        "benchmark": "embedded",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": options.split,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, shared",
        "versions": {"torch": torch.__version__, "vllm": vllm.__version__},
        "seconds": round(seconds),
        "figures": {n: [round(v, 4) for v in values] for n, values in bars.values.items()},
        "bars": {n: f"{sign} {limit:g}" for n, (sign, limit) in bars.bounds.items()},
        "missed": [name for name in bars.bounds if not bars.reached(name)],
    }


def main() -> None:
    """Parse, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--quick", action="store_true", help="one seed, fewer items, nothing saved")
    parser.add_argument("--no-student", action="store_true", help="leave out bar 5")
    parser.add_argument("--teacher", type=Path, default=EMBEDDED / "teacher")
    parser.add_argument("--student", type=Path, default=EMBEDDED / "student")
    options = parser.parse_args()
    started = time.monotonic()
    bars = measure(options)
    result = record(bars, options, time.monotonic() - started)
    print(bars.table())
    print(json.dumps(result))
    if not options.quick:
        path = ROOT / "benchmarks" / "results" / "embedded.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
