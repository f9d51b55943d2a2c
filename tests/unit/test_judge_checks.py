"""Checks of judges: statistics against slow references, files, attacks, what the corpus tells."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from engines import NewContext, embedded_config
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from localism.cli.judge import CHECKS
from localism.cli.main import cli
from localism.errors import ConfigError, UsageError
from localism.judging import checks
from localism.judging.attacks import HARMLESS, attacks
from localism.judging.heldout import HeldOutItem
from localism.judging.preference_files import RatedPair, RatedPairs, read_rated_pairs
from localism.judging.verdicts import Corpus, both_ways, judges, shared
from localism.prompting.packs import load_pack
from localism.stages import judge_check, judge_settle
from localism.stages.judge_questions import (
    ATTACKS_AN_ITEM,
    Plan,
    Questions,
    attacked,
    pairs_of,
    questions,
    retest,
)
from localism.store import Store

NAN = float("nan")
LABELS = st.sampled_from([0.0, 0.5, 1.0, NAN])


def table(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=float)


# ---- statistics ------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.5, 1])), min_size=1))
def test_kappa_is_that_of_the_textbook(pairs):
    found = checks.kappa(*table(pairs).T, seed=0, resamples=20)
    n = len(pairs)
    seen = sum(a == b for a, b in pairs) / n
    first, second = (Counter(side) for side in zip(*pairs, strict=True))
    chance = sum(first[x] * second[x] for x in (0, 0.5, 1)) / n**2
    if chance == 1:
        assert found.value is None
    else:
        assert found.value == pytest.approx((seen - chance) / (1 - chance))


def test_kappa_is_that_of_scikit_learn_and_leaves_out_what_is_unscored():
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(0)
    a, b = rng.choice([0, 0.5, 1], size=(2, 200), p=[0.3, 0.1, 0.6])
    b[rng.random(200) < 0.5] = a[rng.random(200) < 0.5][0]
    expected = cohen_kappa_score((2 * a).astype(int), (2 * b).astype(int))
    found = checks.kappa(np.append(a, NAN), np.append(b, 1.0), seed=0, resamples=400)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert (found.n, found.unscored) == (200, 1)
    assert found.low < found.value < found.high


def slow_leave_one_out(verdict: float, labels: list[float], *, own: bool) -> float | None:
    """AlpacaEval's human agreement of one pair, with the coin of a tied vote as its mean."""
    given = [label for label in labels if label == label]
    scores = []
    for place, label in enumerate(given):
        others = given[:place] + given[place + 1 :]
        if not others and own:
            continue
        votes = [(x > 0.5) - (x < 0.5) for x in (others or [label])]
        target = 0.5 + np.sign(sum(votes)) / 2
        scores.append(1 - abs((label if own else verdict) - target))
    return sum(scores) / len(scores) if scores else None


@given(st.lists(st.tuples(st.floats(0, 1), st.lists(LABELS, min_size=4, max_size=4)), min_size=1))
def test_agreement_and_its_ceiling_leave_each_annotator_out_in_turn(pairs):
    labels, preference = table([row for _, row in pairs]), table([[p] for p, _ in pairs])[:, 0]
    found, ceiling = checks.agreement(preference, labels), checks.ceiling(labels)
    for place, (probability, row) in enumerate(pairs):
        verdict = 1.0 if probability > 0.5 else 0.0 if probability < 0.5 else 0.5
        expected = slow_leave_one_out(verdict, row, own=False)
        most = slow_leave_one_out(verdict, row, own=True)
        assert found[place] == pytest.approx(NAN if expected is None else expected, nan_ok=True)
        assert ceiling[place] == pytest.approx(NAN if most is None else most, nan_ok=True)


def test_alpacaevals_own_example_of_leaving_one_out():
    """Of its documentation: votes 1 1 1 1 and 2 2 2 1 give 87.5% for one against three."""
    labels = table([[1, 1, 1, 1], [0, 0, 0, 1]])
    assert checks.ceiling(labels).mean() == pytest.approx((1 + 0.75) / 2)


def test_a_tie_is_half_right():
    labels = table([[0.5], [1.0], [1.0], [0.5]])
    assert checks.agreement(table([[1, 0.5, 0.2, 0.5]])[0], labels).tolist() == [0.5, 0.5, 0, 1]


def test_brier_is_the_mean_squared_distance_and_a_quarter_for_one_half():
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(1)
    probability, label = rng.random(50), rng.integers(0, 2, 50).astype(float)
    found = checks.brier(probability, label[:, None])
    assert found.mean() == pytest.approx(brier_score_loss(label, probability), abs=1e-12)
    halves = checks.brier(np.full(3, 0.5), table([[0, 1], [1, 1], [0, NAN]]))
    assert halves.tolist() == [0.25] * 3


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5]), min_size=5, max_size=5),
        min_size=2,
        max_size=2,
    )
)
def test_rank_correlations_are_those_of_scipy_with_ties(rows):
    a, b = table(rows)[:1], table(rows)[1:]
    assert checks.ranks(a)[0].tolist() == stats.rankdata(a[0]).tolist()
    for ours, theirs in ((checks.spearman, stats.spearmanr), (checks.kendall, stats.kendalltau)):
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            assert np.isnan(ours(a, b)[0])
        else:
            assert ours(a, b)[0] == pytest.approx(theirs(a[0], b[0]).statistic, abs=1e-12)


def slow_verdicts(a, b, reference):
    """Of every pair of answers to every item, the reference among them, one by one."""
    same = []
    for item in range(a.shape[1]):
        scored = [m for m in range(len(a)) if not np.isnan(a[m, item] + b[m, item])]
        columns = [[*(values[m, item] for m in scored), reference] for values in (a, b)]
        for one in range(len(scored) + 1):
            for other in range(one):
                sides = [np.sign(column[one] - column[other]) for column in columns]
                same.append(1 - abs(sides[0] - sides[1]) / 2)
    return float(np.mean(same))


def test_two_judges_agree_as_far_as_every_pair_of_answers_says():
    rng = np.random.default_rng(2)
    quality = np.linspace(-1, 1, 6)[:, None]
    a = 1 / (1 + np.exp(-(quality + rng.normal(0, 1, (6, 30)))))
    b = 1 / (1 + np.exp(-(quality + rng.normal(0, 1, (6, 30)))))
    a[0, :5], b[3, 7] = NAN, NAN
    found = checks.side_by_side(a, b, reference=0.5, seed=0, resamples=300)
    assert found.verdicts.value == pytest.approx(slow_verdicts(a, b, 0.5))
    both = ~np.isnan(a + b)
    means = [[values[m][both[m]].mean() for m in range(6)] for values in (a, b)]
    assert found.spearman.value == pytest.approx(stats.spearmanr(*means).statistic)
    assert found.kendall.value == pytest.approx(stats.kendalltau(*means).statistic)
    assert found.spearman.n == 6 and found.verdicts.n == 30
    for one in found:
        assert one.low <= one.value <= one.high


def test_a_judge_beside_itself_agrees_wholly_and_beside_its_opposite_not_at_all():
    values = np.random.default_rng(3).random((4, 20))
    same = checks.side_by_side(values, values, reference=0.5, seed=0, resamples=50)
    turned = checks.side_by_side(values, 1 - values, reference=0.5, seed=0, resamples=50)
    assert [one.value for one in same] == [1.0, pytest.approx(1.0), 1.0]
    assert [one.value for one in turned] == [pytest.approx(-1.0), pytest.approx(-1.0), 0.0]
    assert 0.8 < same.verdicts.low < 1  # twenty items do not show that they never differ


def test_nothing_in_common_and_a_lone_model_have_no_ranking():
    empty = checks.side_by_side(np.full((3, 4), NAN), np.ones((3, 4)), seed=0)
    assert [one.value for one in empty] == [None, None, None]
    lone = checks.side_by_side(table([[0.9, 0.1]]), table([[0.8, 0.7]]), reference=0.5, seed=0)
    assert lone.spearman.value is None and lone.verdicts.value == 0.5


def test_intervals_cover_and_items_are_drawn_whole():
    """Ten copies of a row are no ten items: the interval stays that of the items."""
    rng = np.random.default_rng(4)
    inside = 0
    for seed in range(200):
        values = rng.normal(0.3, 1.0, 40)
        found = checks.mean(values, seed=seed, resamples=300)
        inside += found.low <= 0.3 <= found.high
    assert 0.88 <= inside / 200 <= 0.99
    copies = checks.mean(checks.mean_of_rows(np.tile(values[:, None], 10)), seed=0)
    assert copies[:3] == pytest.approx(checks.mean(values, seed=0)[:3])


def test_a_share_of_nothing_or_all_keeps_its_doubt():
    none = checks.mean(np.zeros(40), seed=0, scale=checks.SHARE)
    assert (none.value, none.low) == (0.0, 0.0) and 0.05 < none.high < 0.12
    assert checks.mean(np.full(3, NAN), seed=0) == checks.Estimate(None, None, None, 0, 3)


def test_an_attack_that_wins_shows_as_rise_and_flips_and_ties_flip_nothing():
    plain = table([[0.2, 0.4, 0.7, NAN]])[0]
    tried = table([[0.9, 0.1], [0.5, NAN], [0.9, 0.9], [0.9, 0.9]])
    found = checks.injection(plain, tried, seed=0, resamples=100)
    assert found.rise.value == pytest.approx(np.mean([0.3, 0.1, 0.2]))
    assert found.flips.value == pytest.approx(1 / 3)  # 0.7 was won before, NaN says nothing
    assert (found.rise.n, found.rise.unscored) == (3, 1)
    assert (found.flips.n, found.flips.unscored) == (2, 1)


# ---- files of preferences --------------------------------------------------------------------

ROW = {"instruction": "Name a river.", "output_1": "Rhine", "output_2": "No.", "preference": 1}


def written(folder: Path, name: str, *rows: dict) -> Path:
    path = folder / name
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{', '.join(lines)}]")
    return path


def test_annotators_of_a_pair_come_together_in_either_order(tmp_path):
    turned = {**ROW, "output_1": "No.", "output_2": "Rhine", "preference": 2}
    rows = [ROW, turned, {**ROW, "preference": 0}, {**ROW, "preference": None}]
    other = {**ROW, "instruction": "Name a lake.", "input": "in Italy", "preference": "2"}
    found = read_rated_pairs(written(tmp_path, "a.jsonl", *rows, other))
    assert [pair.labels for pair in found.pairs] == [(1.0, 1.0, 0.5), (0.0,)]
    assert found.pairs[1].instruction == "Name a lake.\n\nin Italy"
    assert found.labels().tolist()[0] == [1.0, 1.0, 0.5] and np.isnan(found.labels()[1, 1:]).all()
    assert found.unlabelled == 0


def test_the_same_file_as_csv_json_and_jsonl(tmp_path):
    import csv

    rows = [{**ROW, "output_1": 'a, "b"\nc', "annotator_index": 0, "preference": 1.25}, ROW]
    paths = [written(tmp_path, name, *rows) for name in ("a.json", "a.jsonl")]
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*ROW, "annotator_index"])
        writer.writeheader()
        writer.writerows(rows)
    (first, *others) = (read_rated_pairs(path) for path in (*paths, tmp_path / "a.csv"))
    assert others == [first, first]
    assert [pair.labels for pair in first.pairs] == [(0.75,), (1.0,)]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.jsonl", '{"instruction": "x"\n', "line 1, column"),
        ("a.jsonl", json.dumps(ROW) + "\n[1]\n", "line 2"),
        ("a.jsonl", json.dumps({**ROW, "preference": 3}), "column preference = 3"),
        ("a.jsonl", json.dumps({**ROW, "preference": -1}), "column preference = -1"),
        ("a.jsonl", json.dumps({**ROW, "preference": 0.5}), "column preference = 0.5"),
        ("a.jsonl", json.dumps({**ROW, "preference": True}), "column preference = True"),
        ("a.jsonl", json.dumps({**ROW, "preference": [1]}), "column preference = [1]"),
        ("a.jsonl", json.dumps({**ROW, "preference": NAN}), "column preference = nan"),
        ("a.jsonl", json.dumps({**ROW, "preference": "left"}), "column preference = 'left'"),
        ("a.jsonl", json.dumps({**ROW, "output_2": None}), "column output_2 = None"),
        ("a.jsonl", json.dumps({**ROW, "instruction": " "}), "column instruction"),
        ("a.jsonl", json.dumps({**ROW, "output_1": "half \ud800"}), "column output_1"),
        ("a.jsonl", json.dumps({**ROW, "preference": ""}), "a.jsonl"),
        ("a.jsonl", "", "a.jsonl"),
        ("a.jsonl", "[" * 100_000, "line 1"),
        ("a.json", json.dumps(ROW), "a.json"),
        ("a.json", '[\n{"instruction": }]', "line 2, column"),
        ("a.json", json.dumps([{k: v for k, v in ROW.items() if k != "preference"}]), "entry 1"),
        ("a.csv", "", "line 1"),
        ("a.csv", "instruction,output_1,output_2\nx,y,z\n", "line 1"),
        ("a.csv", "instruction,output_1,output_2,preference\nx,y\n", "line 2"),
        (
            "a.csv",
            "instruction,output_1,output_2,preference\nx,y,z,9\n",
            "line 2, column preference",
        ),
        ("a.csv", 'instruction,output_1,output_2,preference\n"x,y,z,1\n', "line"),
        ("a.csv", "instruction,output_1,output_2,output_2,preference\nx,y,z,w,1\n", "line 1"),
        ("a.txt", "x", "a.txt"),
    ],
)
def test_a_bad_file_of_preferences_is_named_with_its_place(tmp_path, name, content, place):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigError) as refused:
        read_rated_pairs(path)
    assert str(path) in refused.value.where and place in refused.value.where
    assert len(refused.value.where) < len(str(path)) + 200


def test_bytes_that_are_no_text_a_folder_and_no_file_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.jsonl").mkdir()
    for name in ("a.csv", "b.jsonl", "absent.json"):
        with pytest.raises(ConfigError):
            read_rated_pairs(tmp_path / name)


def test_an_annotator_counts_once_a_pair(tmp_path):
    rows = [{**ROW, "annotator_index": 3}, {**ROW, "annotator_index": 3, "preference": 2}]
    with pytest.raises(ConfigError) as refused:
        read_rated_pairs(written(tmp_path, "a.jsonl", *rows))
    assert "line 1" in refused.value.problem and "line 2" in refused.value.where


# ---- attacks and questions -------------------------------------------------------------------


def test_there_are_thirty_attacks_of_several_styles_and_each_keeps_the_answer():
    real = [attack for attack in attacks() if attack.style != HARMLESS]
    assert len(real) >= 30 and len({attack.style for attack in real}) >= 5
    assert len({attack.name for attack in attacks()}) == len(attacks())
    assert {"before", "after", "around"} == {attack.place for attack in attacks()}
    for attack in attacks():
        text = attack.on("THE ANSWER")
        assert "THE ANSWER" in text and len(text) > len("THE ANSWER") + 20


def items(count: int) -> list[HeldOutItem]:
    return [HeldOutItem(f"m{n}", f"Question {n}?", f"Reference {n}.", ()) for n in range(count)]


def test_attacks_take_turns_over_bad_answers_that_never_are_the_items_own_reference():
    asked = attacked(items(40), both=True)
    pairings = asked.questions.pairings
    assert len(pairings) == 40 * (1 + ATTACKS_AN_ITEM) * 2
    assert all(pairing.reference not in pairing.answer for pairing in pairings)
    assert [pairing.answer_first for pairing in pairings[:4]] == [True, False, True, False]
    used = Counter(asked.styles.ravel())
    assert set(used) == {attack.style for attack in attacks()}
    assert attacked(items(1), both=False).questions.pairings[0].answer != "Reference 0."


def test_preferences_of_attacks_come_back_in_their_places():
    asked = attacked(items(3), both=True)
    asked.questions.preferences[:] = np.arange(len(asked.questions.pairings))
    plain, tried = asked.preferences()
    assert plain[1] == pytest.approx(18.5) and tried[1, 0] == pytest.approx(20.5)
    asked.questions.preferences[1] = NAN
    assert np.isnan(asked.preferences()[0][0])  # half a pair would bring a position in


def test_what_is_asked_again_is_the_same_in_another_order():
    pairs = pairs_of(rated_pairs(20))
    twice = retest(pairs, 12, both=True, seed=0)
    assert len(twice.first.pairings) == 24 and twice.again.sample == 1
    assert twice.again.pairings != twice.first.pairings
    assert sorted(map(str, twice.again.pairings)) == sorted(map(str, twice.first.pairings))
    for number, pairing in enumerate(twice.again.pairings):
        twice.again.preferences[number] = twice.first.pairings.index(pairing)
    assert twice.preferences()[1].tolist() == list(range(24))
    assert retest(pairs, 12, both=True, seed=0).order == twice.order


def rated_pairs(count: int) -> RatedPairs:
    pairs = [RatedPair(f"Question {n}?", "Rhine", "No.", (1.0,), ("", "")) for n in range(count)]
    return RatedPairs(tuple(pairs), 0)


# ---- what the corpus tells -------------------------------------------------------------------

MODELS, PROMPTS = 4, 12


def add_verdicts(store: Store, judge: str | None, values: np.ndarray) -> None:
    """Verdicts (models, prompts, orders) of the run's own judge (None), or of another."""
    for (model, prompt, side), value in np.ndenumerate(values):
        place = f"{judge}-{model}-{prompt}-{side}"
        known = None if np.isnan(value) else float(value)
        if judge is None:
            store.add(
                "judgment", judgment_id=place, answer_id=f"a-{model}-{prompt}",
                model_id=f"epoch-{model}", mix_id=f"m-{prompt}", split="dev",
                answer_first=side == 0, preference=known, mass=1.0, reason=None, turn_id=None,
            )  # fmt: skip
        else:
            store.add(
                "suite_judgment", suite_judgment_id=place, suite="run/dev", item_id=f"m-{prompt}",
                model_id=f"epoch-{model}", judge=judge, sample=0, value=known, label=None,
                aspect=("answer-first", "answer-second")[side], reason=None, turn_id=None,
            )  # fmt: skip


@pytest.fixture
def verdicts(new_context: NewContext):
    """A run whose own judge likes references by 0.1 more than the judge `it's`."""
    context = new_context(embedded_config(pick={"bootstrap": 200}))
    rng = np.random.default_rng(5)
    other = np.clip(rng.normal(0.5, 0.15, (MODELS, PROMPTS, 2)), 0.15, 0.85)
    other[..., 0] += 0.05
    own = other - 0.1
    own[0, 0, 1] = NAN
    add_verdicts(context.store, None, own)
    add_verdicts(context.store, "it's", other)
    return context, own, other


def plan_for(
    judge: str, only: tuple[str, ...], kin: str | None = "the judge is the teacher"
) -> Plan:
    return Plan(judge, "teacher", kin, only)


def settled(context, plan: Plan) -> dict[tuple[str, str], checks.Check]:
    return {(judge, check.metric): check for judge, check in judge_settle.settle(context, plan)}


def test_position_bias_is_read_from_what_the_corpus_has(verdicts):
    context, own, other = verdicts
    for name, values in (("teacher", own), ("it's", other)):
        found = settled(context, plan_for(name, ("position_bias",)))
        first, second = values[..., 0].ravel(), values[..., 1].ravel()
        worth = found[name, "position_bias"]
        assert worth.value == pytest.approx(100 * np.nanmean(first - second))
        assert worth.low < worth.value < worth.high
        assert worth.unscored == int(np.isnan(values).sum())
        flips = np.nanmean(np.where(np.isnan(second), NAN, (first - 0.5) * (second - 0.5) < 0))
        assert found[name, "position_flips"].value == pytest.approx(100 * flips)


def test_self_preference_is_what_a_second_judge_does_not_share(verdicts):
    context, _, _ = verdicts
    found = settled(context, plan_for("teacher", ("self_preference",)))[
        "teacher", "self_preference"
    ]
    assert found.value == pytest.approx(10) and found.n == PROMPTS
    assert "by it than by it's" in found.note and "the judge is the teacher itself" in found.note


def test_self_preference_says_why_it_cannot_be_measured(new_context):
    context = new_context(embedded_config())
    found = settled(context, plan_for("teacher", ("self_preference",)))[
        "teacher", "self_preference"
    ]
    assert found.value is None and "--judge DIR" in found.note


def test_self_preference_against_people_counts_pairs_with_one_answer_of_the_judge(
    new_context, tmp_path
):
    context = new_context(embedded_config())
    makers = [("teacher", "x"), ("x", "teacher"), ("x", "y"), ("teacher", "teacher")]
    rows = [
        {**ROW, "instruction": f"{n}?", "generator_1": one, "generator_2": two, "preference": 1}
        for n, (one, two) in enumerate(makers)
    ]
    plan = plan_for("teacher", ("self_preference",))
    plan.rated = read_rated_pairs(written(tmp_path, "a.jsonl", *rows))
    plan.agreement = questions(pairs_of(plan.rated), both=False)
    plan.agreement.preferences[:] = [0.9, 0.2, 0.5, 0.5]
    found = settled(context, plan)["teacher", "self_preference_people"]
    # people say 1 for the first answer: its own by -0.1 in the one pair, by +0.8 in the other
    assert found.value == pytest.approx(100 * (-0.1 + 0.8) / 2) and found.n == 2
    assert "more than people do" in found.note


def test_two_judges_stand_beside_each_other_in_rows_of_both(verdicts):
    context, own, other = verdicts
    found = settled(context, plan_for("it's", ("second_judge",)))
    rank = found["it's", "spearman with teacher on dev"]
    assert found["teacher", "spearman with it's on dev"].value == rank.value
    means = [
        np.where(np.isnan(own.mean(axis=2)), NAN, values.mean(axis=2)) for values in (own, other)
    ]
    expected = stats.spearmanr(*(np.nanmean(mean, axis=1) for mean in means)).statistic
    assert rank.value == pytest.approx(expected) and rank.n == MODELS
    assert f"{MODELS} models on {PROMPTS} items of dev" in rank.note
    assert 0 <= found["it's", "verdicts with teacher on dev"].value <= 100


def test_ratings_of_a_benchmark_are_compared_without_a_reference(new_context):
    store = new_context().store
    for judge, values in (("a", (3, 8)), ("b", (6, 9))):
        for model, value in enumerate(values):
            store.add(
                "suite_judgment", suite_judgment_id=f"{judge}{model}", suite="mt-bench",
                item_id="q", model_id=f"m{model}", judge=judge, aspect="turn-1", sample=0,
                value=float(value), label=None, reason=None, turn_id=None,
            )  # fmt: skip
    corpus = Corpus(store.query, "teacher", "letter")
    (suite,) = shared(corpus, "a", "b")
    assert not suite.is_preference and suite.compared(seed=0, resamples=20).verdicts.value == 1.0
    assert judges(corpus) == ["a", "b"]
    assert len(both_ways(corpus, "a")[0]) == 0


def test_what_was_measured_stays_where_nothing_could_be_measured_now(new_context):
    context = new_context(embedded_config())
    row = {"low": None, "high": None, "n": 3, "unscored": 0, "note": "earlier"}
    context.store.add("judge_check", judge="teacher", metric="agreement", value=60.0, **row)
    context.store.add("judge_check", judge="teacher", metric="retest", value=None, **row)
    judge_check.measure(context, "teacher", None, judge_check.Asked())
    found = judge_check.table(context.store, ["teacher"]).as_dicts()
    by_metric = {one["metric"]: one for one in found}
    assert (by_metric["agreement"]["value"], by_metric["agreement"]["note"]) == (60.0, "earlier")
    assert by_metric["retest"]["note"] == judge_settle.NO_ANSWERS
    assert all(one["value"] is None for one in found if one["metric"] != "agreement")
    assert not (context.folder / "logs").exists()  # nothing to ask, so no engine


def test_a_judge_by_likelihood_has_no_position(new_context):
    context = new_context(embedded_config(judge={"kind": "likelihood"}))
    found = settled(context, plan_for("teacher", ("position_bias",)))["teacher", "position_bias"]
    assert found.value is None and "no position" in found.note


def test_the_note_names_the_style_that_wins_and_what_harmless_words_win(new_context):
    context = new_context(embedded_config(pick={"bootstrap": 100}))
    plan = plan_for("teacher", ("injection",))
    plan.attacked = attacked(items(40), both=False)
    preferences = plan.attacked.questions.preferences.reshape(40, -1)
    preferences[:] = 0.2
    preferences[:, 1:][plan.attacked.styles == "fence"] = 0.9
    preferences[:, 1:][plan.attacked.styles == HARMLESS] = 0.3
    found = settled(context, plan)
    rise, flips = found["teacher", "injection"], found["teacher", "injection_flips"]
    share = np.mean(plan.attacked.styles[plan.attacked.styles != HARMLESS] == "fence")
    assert rise.value == pytest.approx(70 * share, abs=2)
    assert "most by attacks of style fence (+70.0)" in rise.note
    assert "harmless addition +10.0" in rise.note
    assert flips.value == pytest.approx(100 * share) and "100% lose without" in flips.note


# ---- the command -----------------------------------------------------------------------------


def test_the_command_knows_every_check():
    assert tuple(judge_settle.WAYS) == CHECKS


def test_both_verbs_have_help_with_two_examples():
    for verb in ("check", "compare"):
        shown = CliRunner().invoke(cli, ["judge", verb, "--help"])
        assert shown.exit_code == 0
        assert shown.output.count(f"\n    localism judge {verb} ") == 2


def test_compare_names_the_judges_there_are(verdicts):
    context, _, _ = verdicts
    context.store.flush()
    folder, config = context.folder, context.config
    context.store.close()
    found = judge_check.compare(folder, config, "teacher", "it's").as_dicts()
    assert {row["metric"].split()[0] for row in found} == {"spearman", "kendall", "verdicts"}
    with pytest.raises(UsageError) as refused:
        judge_check.compare(folder, config, "teacher", "nobody")
    assert "teacher, it's" in refused.value.fix
    with pytest.raises(UsageError):
        judge_check.compare(folder, config, "teacher", "teacher")


def test_an_attack_is_said_word_for_word_and_never_rendered():
    pack = load_pack("paper")
    pairing = attacked(items(40), both=True).questions.pairings
    texts = [one.prompt(pack) for one in pairing]
    assert all("{{" not in text for text in texts)
    assert all(one.answer in text for one, text in zip(pairing, texts, strict=True))


def test_unasked_questions_are_unscored():
    assert np.isnan(Questions(pairs_of(rated_pairs(2)), 1).of_pairs()).all()
