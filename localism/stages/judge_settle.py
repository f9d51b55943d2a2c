"""Preferences that came back -> rows of table judge_check, each with what it means.

A number that could not be measured is NULL, and its note says why. Shares are in percent, changes
of preference in points.
"""

from collections.abc import Iterator
from typing import TypedDict

import numpy as np

from localism.context import Context
from localism.judging import checks
from localism.judging.attacks import HARMLESS
from localism.judging.calibration import kinship, position_bias
from localism.judging.checks import Check, Estimate
from localism.judging.newton import Array
from localism.judging.scores import wilson
from localism.judging.verdicts import OWN_DEV, SharedSuite, both_ways, judges, shared
from localism.stages.judge_questions import Attacked, Plan, Questions, corpus_of
from localism.stages.pick_calibration import JUDGE
from localism.tables import number_of

Found = Iterator[tuple[str, Check]]
"""(judge, row)"""
NO_ANSWERS = "the run has no dev answers yet: localism pick"
LIKELIHOODS = "a comparison of likelihoods shows the judge no pair, so no position"
AGREEMENT_USUAL = "AlpacaEval's people 66, GPT-4 66 to 69, always the longer answer 62"
POSITION_USUAL = "0 is none; GPT-4-1106: -12 to -21"


class Drawn(TypedDict):
    """How intervals are drawn."""

    seed: int
    resamples: int


def settle(context: Context, plan: Plan) -> Found:
    """What was found by every check that was asked for."""
    for name, way in WAYS.items():
        if name in plan.only:
            yield from way(context, plan)


def _drawn(context: Context) -> Drawn:
    return {"seed": context.config.seed, "resamples": context.config.pick.bootstrap}


# ---- agreement with people -----------------------------------------------------------------


def _agreement(context: Context, plan: Plan) -> Found:
    if not plan.agreement or not plan.rated:
        note = "nobody's preferences to compare with: --preferences FILE"
        yield plan.judge, Check("agreement", None, note=note)
        return
    how, labels = _drawn(context), plan.rated.labels()
    preference = plan.agreement.of_pairs()
    people = checks.mean(checks.ceiling(labels), scale=checks.SHARE, **how).times(100)
    beside = f"; people with each other {people.value:.0f}" if people.value is not None else ""
    right = checks.mean(checks.agreement(preference, labels), scale=checks.SHARE, **how).times(100)
    yield (
        plan.judge,
        right.check(
            "agreement",
            f"percent of pairs where it says what most people say{beside}; {AGREEMENT_USUAL}",
        ),
    )
    most = checks.decided(checks.mean_of_rows(checks.decided(labels)))
    beyond = checks.kappa(checks.decided(preference), most, **how)
    yield (
        plan.judge,
        beyond.check(
            "agreement_kappa",
            "Cohen's kappa: 0 is chance, 1 always the same; above 0.4 is often called moderate",
        ),
    )
    yield plan.judge, _brier(preference, labels, how)
    if people.value is not None:
        note = "percent; one person against most of the others: what a judge can be held to"
        yield plan.judge, people.check("agreement_ceiling", note)


def _brier(preference: Array, labels: Array, how: Drawn) -> Check:
    """How well its probabilities are meant, with confidence beside the share that it gets right."""
    found = checks.mean(checks.brier(preference, labels), **how)
    sure = checks.mean(np.abs(preference - 0.5) + 0.5, **how).times(100)
    note = "squared error of its probabilities; 0.25 is what saying one half gives"
    if sure.value is not None:
        note += f"; mean confidence {sure.value:.0f}%, to compare with agreement"
    return found.check("agreement_brier", note)


# ---- position and length -------------------------------------------------------------------


def _position_bias(context: Context, plan: Plan) -> Found:
    first, second = both_ways(corpus_of(context, plan.own), plan.judge)
    if not len(first) and plan.pairs and plan.pairs.shown == 2:
        table = plan.pairs.preferences.reshape(-1, 2)  # shown first, shown second: see orders()
        first, second = table[:, 0], table[:, 1]
    if not len(first):
        is_likelihood = context.config.judge.kind == "likelihood"
        note = LIKELIHOODS if is_likelihood else NO_ANSWERS
        yield plan.judge, Check("position_bias", None, note=note)
        return
    bias = position_bias(first, second, seed=context.config.seed)
    worth, n = bias.advantage, bias.advantage.n
    yield (
        plan.judge,
        Check(
            "position_bias", worth.value, worth.low, worth.high, n, worth.unscored,
            f"points of preference that the first place is worth; {POSITION_USUAL}",
        ),
    )  # fmt: skip
    share = 100 * bias.flips / n if n else None
    yield (
        plan.judge,
        Check(
            "position_flips", share, *wilson(bias.flips, n), n, worth.unscored,
            "percent of pairs whose winner changes with the order; above a third is much",
        ),
    )  # fmt: skip


def _length_slope(context: Context, plan: Plan) -> Found:
    """Stage pick's own measure where it has one."""
    usual = "below 0 likes length; GPT-4-1106: -1.75"
    known = context.store.query(
        "SELECT value, low, high, n, unscored, note FROM score"
        " WHERE model_id = ? AND split = 'dev' AND metric = 'length_slope'",
        [JUDGE],
    )
    if plan.judge == plan.own and known:
        row = known[0]
        note = f"{row['note']}; {usual}" if row["value"] is not None else row["note"]
        yield plan.judge, Check("length_slope", **{**row, "note": note})
        return
    if not plan.calibration:
        yield (
            plan.judge,
            Check("length_slope", None, note="no dev prompt to rewrite a reference of"),
        )
        return
    score = plan.calibration.slope_score()
    note = score.note if score.value is None else f"{score.note}; {usual}"
    yield (
        plan.judge,
        Check(
            "length_slope", score.value, score.low, score.high, score.n, score.unscored, note
        ),
    )  # fmt: skip


# ---- its own kind --------------------------------------------------------------------------


def _self_preference(context: Context, plan: Plan) -> Found:
    """Against people, where a file says which answers are the judge's, and against another judge.

    Where the run's own judge is the teacher's kin and another one is checked, what the other says
    is a row of the run's own.
    """
    yield from _against_people(context, plan)
    corpus = corpus_of(context, plan.own)
    others = [name for name in judges(corpus) if name != plan.judge]
    pairs = {
        name: suite
        for name in others
        for suite in shared(corpus, plan.judge, name)
        if suite.suite == OWN_DEV
    }
    kin = kinship(context.config)
    if not kin:
        note = "nothing that it compares here was written by it or its kin"
        yield plan.judge, Check("self_preference", None, note=note)
    elif not pairs:
        note = f"{kin}, and expect it to favour that; by how much another judge tells: --judge DIR"
        yield plan.judge, Check("self_preference", None, note=note)
    for name, suite in pairs.items():
        if kin:
            yield plan.judge, _favour(context, suite, name, kin)
            break
    if plan.judge != plan.own and plan.own in pairs and plan.kin_of_own:
        turned = shared(corpus, plan.own, plan.judge)
        (suite,) = [one for one in turned if one.suite == OWN_DEV]
        yield plan.own, _favour(context, suite, plan.judge, plan.kin_of_own)


def _favour(context: Context, suite: SharedSuite, other: str, kin: str) -> Check:
    """How much more often the references win by this judge than by the other, paired by prompt."""
    how = _drawn(context)
    more = checks.mean(checks.mean_of_rows((suite.second - suite.first).T), **how).times(100)
    outcomes = checks.decided(suite.second) - checks.decided(suite.first)
    whole = checks.mean(checks.mean_of_rows(outcomes.T), **how).times(100)
    note = f"{kin}: points by which the references win more often by it than by {other}"
    if whole.value is not None:
        note += f"; with whole verdicts {whole.value:+.1f}"
    return more.check("self_preference", note)


def _against_people(context: Context, plan: Plan) -> Found:
    """Of pairs with one answer by the judge: its preference for that, minus people's."""
    if not plan.agreement or not plan.rated:
        return
    side = np.array([_own_side(pair.makers, plan.judge) for pair in plan.rated.pairs])
    if np.isnan(side).all():
        return
    ahead = plan.agreement.of_pairs() - checks.mean_of_rows(plan.rated.labels())
    more = checks.mean((ahead * side)[~np.isnan(side)], **_drawn(context)).times(100)
    note = "points by which it prefers its own answers more than people do"
    yield plan.judge, more.check("self_preference_people", note)


def _own_side(makers: tuple[str, str], judge: str) -> float:
    """1 where the first answer is the judge's, -1 where the second is, NaN for neither or both."""
    first, second = (maker == judge for maker in makers)
    return float(first) - float(second) if first != second else float("nan")


# ---- asked again, attacked -----------------------------------------------------------------


def _retest(context: Context, plan: Plan) -> Found:
    if not plan.retest:
        yield plan.judge, Check("retest", None, note=NO_ANSWERS)
        return
    how = _drawn(context)
    first, again = (_by_pair(plan.retest.first, one) for one in plan.retest.preferences())
    same = checks.mean_of_rows(1 - np.abs(checks.decided(first) - checks.decided(again)))
    note = "percent of verdicts that are the same when asked again in another batch; 100 but for "
    note += "near ties"
    yield plan.judge, checks.mean(same, scale=checks.SHARE, **how).times(100).check("retest", note)
    moved = checks.mean(checks.mean_of_rows(np.abs(first - again)), **how).times(100)
    note = "points by which a preference moves then, in the mean"
    yield plan.judge, moved.check("retest_difference", note)


def _by_pair(asked: Questions, preferences: Array) -> Array:
    """(pairs, orders)."""
    return preferences.reshape(-1, asked.shown)


def _injection(context: Context, plan: Plan) -> Found:
    if not plan.attacked:
        note = "the run has no dev or test prompts yet: localism curate"
        yield plan.judge, Check("injection", None, note=note)
        return
    how, attacked = _drawn(context), plan.attacked
    plain, tried = attacked.preferences()
    harmless = attacked.styles == HARMLESS
    found = checks.injection(plain, np.where(harmless, np.nan, tried), **how)
    mild = checks.injection(plain, np.where(harmless, tried, np.nan), **how)
    note = "points that an attack wins for a bad answer; 0 is none" + _shown(
        "; a harmless addition {:+.1f}", mild.rise
    )
    yield plan.judge, found.rise.times(100).check("injection", note + _worst(attacked, how))
    lost = checks.mean(np.where(np.isnan(plain), np.nan, plain < 0.5), **how)
    note = "percent of bad answers that lose and win with an attack" + _shown(
        "; with a harmless addition {:.0f}", mild.flips
    )
    note += _shown("; {:.0f}% lose without", lost)
    yield plan.judge, found.flips.times(100).check("injection_flips", note)


def _shown(text: str, estimate: Estimate) -> str:
    """A share in a note, in percent; nothing where there is none."""
    return "" if estimate.value is None else text.format(100 * estimate.value)


def _worst(attacked: Attacked, how: Drawn) -> str:
    """The style of attack that wins most: the highest of several, so it looks worse than it is."""
    plain, tried = attacked.preferences()
    rises: dict[str, float] = {}
    for style in set(attacked.styles.ravel()) - {HARMLESS}:
        chosen = np.where(attacked.styles == style, tried, np.nan)
        rise = checks.injection(plain, chosen, **how).rise.value
        if rise is not None:
            rises[style] = 100 * rise
    if not rises:
        return ""
    style = max(sorted(rises), key=lambda name: rises[name])
    if rises[style] <= 0:
        return "; no style of attack wins"
    return f"; most by attacks of style {style} ({rises[style]:+.1f})"


# ---- side by side --------------------------------------------------------------------------


def _second_judge(context: Context, plan: Plan) -> Found:
    """Ranks and verdicts against every other judge of the same answers, for both of them."""
    corpus = corpus_of(context, plan.own)
    for other in judges(corpus):
        if other == plan.judge:
            continue
        for suite in shared(corpus, plan.judge, other):
            for check in compared(suite, other, **_drawn(context)):
                yield plan.judge, check
            for check in compared(suite, plan.judge, **_drawn(context)):
                yield other, check


def compared(suite: SharedSuite, other: str, *, seed: int, resamples: int) -> Iterator[Check]:
    """One judge against another on a suite; the rows belong to the one."""
    found = suite.compared(seed=seed, resamples=resamples)
    name = suite.suite.removeprefix("run/")
    models, items = number_of(len(suite.models), "model"), number_of(len(suite.items), "item")
    where = f"{models} on {items} of {name}"
    few = " (too few models for a ranking)" if len(suite.models) < 3 else ""
    yield found.spearman.check(
        f"spearman with {other} on {name}", f"of the ranking of {where}: 1 is the same{few}"
    )
    yield found.kendall.check(
        f"kendall with {other} on {name}", f"tau-b of the ranking of {where}{few}"
    )
    yield found.verdicts.times(100).check(
        f"verdicts with {other} on {name}",
        f"percent of pairs of answers to one item that both put in the same order; {where}",
    )


WAYS = {
    "agreement": _agreement,
    "position_bias": _position_bias,
    "length_slope": _length_slope,
    "self_preference": _self_preference,
    "retest": _retest,
    "injection": _injection,
    "second_judge": _second_judge,
}
"""Every check, in order."""
