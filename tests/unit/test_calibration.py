"""From a trial to the whole plan: simulated conversations, of which a trial sees the short ones."""

import heapq
import random
import statistics
from collections.abc import Iterator

import pytest

from localism.calibration import Lengths, Stopped, Talk, Trial, steady_part
from localism.records import Reply

TURNS = ("draft", "rewrite", "critique", "refine")
SECONDS_PER_TOKEN = 0.02
IN_FLIGHT = 64


class Clock:
    """The simulation's time, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def conversation(rng: random.Random) -> dict[str, int]:
    """Completion tokens of its turns. Long drafts are rewritten, and refined at length."""
    draft = int(rng.lognormvariate(5.0, 0.7))
    tokens = {"draft": draft}
    if draft > 300:
        tokens["rewrite"] = int(draft * rng.uniform(0.7, 1.1))
    tokens["critique"] = rng.randint(40, 80)
    tokens["refine"] = int(draft * rng.uniform(0.9, 1.3))
    return tokens


def reply(prompt_tokens: int, tokens: int) -> Reply:
    return Reply("", "", "stop", prompt_tokens, tokens, from_ledger=False)


def held(trial: Trial, clock: Clock, mix_id: str, tokens: dict[str, int]) -> Iterator[float]:
    """One conversation under the trial: yields the moment at which each reply is there."""
    prompt = 50
    for turn, count in tokens.items():
        began = trial.before(mix_id, turn)
        yield clock.now + count * SECONDS_PER_TOKEN
        trial.note(mix_id, turn, reply(prompt, count), began)
        prompt += count + 20


def simulated(seconds: float, seed: int, plan: int = 10**6) -> tuple[Trial, list[int]]:
    """A trial with a fixed number of conversations at once; returns also what its own finished."""
    clock, rng = Clock(), random.Random(seed)
    trial = Trial(clock.now + seconds, clock)
    under_way: list[tuple[float, int, Iterator[float]]] = []
    begun = 0

    def begin() -> None:
        nonlocal begun
        if begun < plan and clock.now < trial.until:
            talk = held(trial, clock, f"mix-{begun}", conversation(rng))
            heapq.heappush(under_way, (next(talk), begun, talk))
            begun += 1

    for _ in range(IN_FLIGHT):
        begin()
    while under_way:
        clock.now, number, talk = heapq.heappop(under_way)
        try:
            heapq.heappush(under_way, (next(talk), number, talk))
        except (StopIteration, Stopped):
            begin()
    finished = [
        sum(heard.completion_tokens for heard in talk.heard)
        for talk in trial.talks.values()
        if talk.next_turn is None
    ]
    return trial, finished


def true_mean(seed: int = 0) -> float:
    rng = random.Random(seed)
    return statistics.fmean(sum(conversation(rng).values()) for _ in range(40_000))


def lengths_of(trial: Trial) -> Lengths:
    return Lengths(list(trial.talks.values()), TURNS)


def test_a_short_trial_finds_the_mean_length_that_its_finished_conversations_miss():
    truth = true_mean()
    found, naive = [], []
    for seed in range(30):
        trial, finished = simulated(12.0, seed)
        found.append(sum(lengths_of(trial).turn_means("completion_tokens").values()) / truth)
        naive.append(statistics.fmean(finished) / truth)
    assert statistics.fmean(naive) < 0.8
    assert statistics.fmean(found) == pytest.approx(1.0, abs=0.03)


def test_the_interval_of_what_is_left_covers_it_about_as_often_as_it_says():
    covered, plan = 0, 800
    for seed in range(12):
        trial, _ = simulated(15.0, seed, plan)
        rng = random.Random(seed)
        everything = sum(sum(conversation(rng).values()) for _ in range(plan))
        heard = sum(h.completion_tokens for talk in trial.talks.values() for h in talk.heard)
        left = lengths_of(trial).forecast("completion_tokens", plan - len(trial.talks), seed).left
        covered += left.low <= everything - heard <= left.high
    assert covered >= 10


def test_every_turn_has_its_mean_with_those_that_skip_it_counted_as_nothing():
    trial, _ = simulated(400.0, seed=1)
    means = lengths_of(trial).turn_means("completion_tokens")
    rng = random.Random(9)
    many = [conversation(rng) for _ in range(40_000)]
    for turn in TURNS:
        truth = statistics.fmean(one.get(turn, 0) for one in many)
        assert means[turn] == pytest.approx(truth, rel=0.12), turn


def test_a_trial_that_did_the_whole_plan_leaves_exactly_nothing():
    trial, _ = simulated(10_000.0, seed=2, plan=200)
    lengths = lengths_of(trial)
    assert len(trial.talks) == 200 and lengths.unseen == []
    assert lengths.forecast("completion_tokens", 0, 0).left == (0.0, 0.0, 0.0)


def test_prompts_are_counted_with_the_replies_that_they_repeat():
    trial, _ = simulated(10_000.0, seed=3, plan=300)
    rng = random.Random(3)
    true = 0
    for one in (conversation(rng) for _ in range(300)):
        prompt = 50
        for count in one.values():
            true += prompt
            prompt += count + 20
    lengths = lengths_of(trial)
    assert lengths.forecast("prompt_tokens", 0, 0).each == pytest.approx(true / 300)


def test_a_turn_that_nobody_came_to_is_named_and_counted_like_the_others():
    trial, _ = simulated(0.8, seed=4)
    lengths = lengths_of(trial)
    assert "refine" in lengths.unseen
    means = lengths.turn_means("completion_tokens")
    assert means["refine"] > 0


def test_a_turn_that_is_always_skipped_costs_nothing():
    talks = []
    for number in range(20):
        trial = Trial(1e9, Clock())
        for turn in ("draft", "critique", "refine"):
            trial.before("mix", turn)
            trial.note("mix", turn, reply(10, 100 + number), 100.0)
        talks.append(trial.talks["mix"])
    lengths = Lengths(talks, TURNS)
    assert lengths.unseen == [] and lengths.turn_means("completion_tokens")["rewrite"] == 0


def test_turns_of_a_stopped_conversation_that_the_ledger_has_are_not_left():
    trial, _ = simulated(10_000.0, seed=5, plan=100)
    half = Trial(200.0, clock := Clock())
    half.before("half", "draft")
    half.note("half", "draft", reply(50, 150), 100.0)
    clock.now = 201.0
    with pytest.raises(Stopped):
        half.before("half", "critique")
    lengths = Lengths([*trial.talks.values(), half.talks["half"]], TURNS)
    left = lengths.forecast("completion_tokens", 0, 0).left
    means = lengths.turn_means("completion_tokens")
    assert left.low < left.value < left.high
    # It has its draft, and skipped the rewrite; 150 tokens are an ordinary draft.
    assert left.value == pytest.approx(means["critique"] + 150 * 1.1, rel=0.25)


def test_the_rate_is_that_of_the_steady_part_without_what_the_ledger_had():
    """Each of the conversations gets a token every 20 ms, so the true rate is known."""
    trial, _ = simulated(60.0, seed=6)
    steady = steady_part(trial)
    assert steady is not None
    assert steady.began - trial.began == pytest.approx(15.0)
    assert steady.ended == trial.until
    assert steady.tokens_per_second == pytest.approx(IN_FLIGHT / SECONDS_PER_TOKEN, rel=0.02)


def test_a_trial_without_a_new_reply_has_no_rate():
    assert steady_part(Trial(1.0, Clock())) is None
    trial = Trial(1e9, Clock())
    trial.before("mix", "draft")
    known = Reply("", "", "stop", 9, 9, from_ledger=True)
    trial.note("mix", "draft", known, 100.0)
    assert steady_part(trial) is None


def test_a_trial_whose_first_replies_come_when_it_is_over_has_a_rate_all_the_same():
    trial = Trial(101.0, clock := Clock())
    began = trial.before("mix", "draft")
    clock.now = 110.0
    trial.note("mix", "draft", reply(9, 500), began)
    steady = steady_part(trial)
    assert steady is not None and steady.tokens_per_second == pytest.approx(50.0)


def test_talks_begin_empty():
    assert Talk() == Talk([], None)
