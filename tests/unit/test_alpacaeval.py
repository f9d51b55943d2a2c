"""AlpacaEval's formula against dense references and published scores; its files read or refused."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import minimize
from scipy.special import expit

from localism.cli.main import cli
from localism.errors import ConfigError, LocalismError, UsageError
from localism.judging.alpacaeval import (
    SLOPE_MEAN,
    SLOPE_PRECISION,
    GamedBlock,
    compat_length_controlled,
)
from localism.judging.alpacaeval_files import (
    read_difficulty_csv,
    read_gamed,
    read_preferences_csv,
)
from localism.judging.winrate import Battles
from localism.judging.winrate_report import winrate_report

HEADER = "model,index,preference,len_model,len_baseline\n"


def made_battles(models=2, items=80, seed=0):
    rng = np.random.default_rng(seed)
    shape = (models, items)
    return Battles(
        tuple(f"m{m}" for m in range(models)),
        tuple(str(i) for i in range(items)),
        rng.beta(0.3, 0.7, shape),
        rng.integers(50, 4000, shape).astype(float),
        np.broadcast_to(rng.integers(50, 4000, items), shape).astype(float),
    ), rng.normal(0, 1.5, items)


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# --- the formula ----------------------------------------------------------------------------


def dense_score(y, len_model, len_baseline, d, penalty):
    """v1 as it is published: own rows in one design matrix, a library optimiser, no batching."""
    delta = len_baseline - len_model
    t = np.tanh(delta / np.std(delta, ddof=1))

    def loss(x):
        eta = x[0] + x[1] * t + x[2] * d
        return (np.logaddexp(0, eta) - y * eta).sum() + penalty(x[1:])

    best = minimize(loss, [0.0, -1.0, 0.5], method="BFGS", options={"gtol": 1e-7})
    return 100 * expit(best.x[0] + best.x[2] * d).mean(), best.x


def test_exact_gamed_block_equals_a_dense_fit_with_all_gamed_judgments():
    battles, d = made_battles()
    rng = np.random.default_rng(1)
    len_base = rng.integers(50, 4000, 120)
    gamed_d = np.tile(rng.normal(0, 1.5, 120), 2)
    deltas = [len_base - len_base * factor for factor in (1.4, 0.5)]
    gamed_t = np.concatenate([np.tanh(delta / np.std(delta, ddof=1)) for delta in deltas])
    judged = rng.random(240)  # our block never sees these, only their two sums

    def rows(slopes):
        eta = slopes[0] * gamed_t + slopes[1] * gamed_d
        return 0.1 * (np.logaddexp(0, eta) - judged * eta).sum()

    block = GamedBlock(gamed_t, gamed_d, gamed_t @ judged, gamed_d @ judged, 0.1)
    found = compat_length_controlled(battles, d, block, seed=0, resamples=0)
    for m in range(2):
        dense, x = dense_score(
            battles.preference[m], battles.len_model[m], battles.len_baseline[m], d, rows
        )
        assert found.values[m] == pytest.approx(dense, abs=1e-3)
        np.testing.assert_allclose(found.slopes[m], x, atol=1e-4)


def test_without_gamed_rows_the_published_gaussian_stands_in():
    battles, d = made_battles(seed=2)

    def gaussian(slopes):
        off = slopes - SLOPE_MEAN
        return 0.5 * off @ SLOPE_PRECISION @ off

    found = compat_length_controlled(battles, d, seed=0, resamples=0)
    for m in range(2):
        dense, _ = dense_score(
            battles.preference[m], battles.len_model[m], battles.len_baseline[m], d, gaussian
        )
        assert found.values[m] == pytest.approx(dense, abs=1e-3)
    assert np.sqrt(np.diag(np.linalg.inv(SLOPE_PRECISION))) == pytest.approx([0.30, 0.15], abs=0.01)


def test_compat_scores_of_one_model_do_not_depend_on_the_others():
    battles, d = made_battles(models=3)
    alone = Battles(
        ("m1",),
        battles.items,
        battles.preference[1:2],
        battles.len_model[1:2],
        battles.len_baseline[1:2],
    )
    together = compat_length_controlled(battles, d, seed=0, resamples=30)
    single = compat_length_controlled(alone, d, seed=0, resamples=30)
    assert together.values[1] == pytest.approx(single.values[0])
    np.testing.assert_allclose(
        together.resampled.length_controlled[:, 1], single.resampled.length_controlled[:, 0]
    )


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_a_model_that_wins_or_loses_everything_has_a_score(verdict):
    battles, d = made_battles(models=1)
    battles.preference[:] = verdict
    found = compat_length_controlled(battles, d, seed=0, resamples=10)
    assert found.values[0] == pytest.approx(100 * verdict, abs=1e-3)


def test_compat_leaves_out_unscored_items_and_models():
    battles, d = made_battles(models=2)
    battles.preference[0, :40] = np.nan
    battles.preference[1] = np.nan
    half = Battles(
        ("m0",),
        battles.items[40:],
        battles.preference[:1, 40:],
        battles.len_model[:1, 40:],
        battles.len_baseline[:1, 40:],
    )
    found = compat_length_controlled(battles, d, seed=0, resamples=10)
    only = compat_length_controlled(half, d[40:], seed=0, resamples=0)
    assert found.values[0] == pytest.approx(only.values[0])
    assert found.values[1] is None


# --- reading --------------------------------------------------------------------------------


def test_preferences_are_read_in_alpacaevals_units(tmp_path):
    text = HEADER + "a,0,2,10,20\na,1,1.25,11,21\nb,0,0,12,20\nb,1,,,\n\n"
    battles = read_preferences_csv(write(tmp_path, "p.csv", text))
    assert (battles.models, battles.items) == (("a", "b"), ("0", "1"))
    np.testing.assert_array_equal(battles.preference, [[1.0, 0.25], [0.5, np.nan]])
    np.testing.assert_array_equal(battles.len_model, [[10, 11], [12, np.nan]])


def test_column_order_extra_columns_and_a_byte_order_mark_do_not_matter(tmp_path):
    text = '\ufefflen_baseline,note,len_model,preference,index,model\n20,x,10,1.5,0,"a, b"\r\n'
    battles = read_preferences_csv(write(tmp_path, "p.csv", text))
    assert battles.models == ("a, b",) and battles.preference[0, 0] == 0.5


@pytest.mark.parametrize("word", ["", "nan", "NaN", "null", "None"])
def test_an_absent_preference_is_unscored(tmp_path, word):
    path = write(tmp_path, "p.csv", f"{HEADER}a,0,{word},,\na,1,2,5,6\n")
    report = winrate_report(path, resamples=5)
    assert (report[0]["win_rate"], report[0]["n"], report[0]["unscored"]) == (100.0, 1, 1)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("a,0,good,1,2\n", "line 2, column preference = 'good'"),
        ("a,0,2,1,2\na,1,0.3,1,2\n", "line 3, column preference = '0.3'"),
        ("a,0,2.5,1,2\n", "line 2, column preference = '2.5'"),
        ("a,0,-1,1,2\n", "line 2, column preference = '-1'"),
        ("a,0,inf,1,2\n", "line 2, column preference = 'inf'"),
        ("a,0,2,,2\n", "line 2, column len_model = ''"),
        ("a,0,2,1,nan\n", "line 2, column len_baseline = 'nan'"),
        ("a,0,2,-5,2\n", "line 2, column len_model = '-5'"),
        ("a,0,2,1e300,2\n", "line 2, column len_model = '1e300'"),
        (",0,2,1,2\n", "line 2, column model = ''"),
        ("a,,2,1,2\n", "line 2, column index = ''"),
        ("a,0,2,1,2\nb,0,2,1,2\na,0,1,1,2\n", "line 4, column index = '0'"),
        ("a,0,2,1\n", "line 2"),
        ("a,b,0,2,1,2\n", "line 2"),
        ('a,0,"2,1,2\n', "line 2"),
        ("", "p.csv"),
    ],
)
def test_a_bad_cell_is_refused_with_file_line_and_column(tmp_path, body, where):
    path = write(tmp_path, "p.csv", HEADER + body)
    with pytest.raises(ConfigError) as refusal:
        read_preferences_csv(path)
    assert str(path) in refusal.value.where
    assert where in refusal.value.where
    assert refusal.value.fix and refusal.value.exit_code == 3


def test_unreadable_files_and_wrong_headers_are_refused(tmp_path):
    latin = tmp_path / "latin.csv"
    latin.write_bytes(HEADER.encode() + b"caf\xe9,0,2,1,2\n")
    empty = write(tmp_path, "empty.csv", "")
    header = write(tmp_path, "header.csv", "model,index,len_model,len_baseline\na,0,1,2\n")
    for path, problem in [
        (tmp_path / "absent.csv", "no such file"),
        (tmp_path, "cannot read"),
        (latin, "not UTF-8"),
        (empty, "columns missing"),
        (header, "columns missing or repeated: preference"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            read_preferences_csv(path)


def test_bad_difficulties_and_gamed_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="occurs twice"):
        read_difficulty_csv(write(tmp_path, "d.csv", "index,difficulty\n0,1\n0,2\n"))
    with pytest.raises(ConfigError, match="not a number"):
        read_difficulty_csv(write(tmp_path, "d.csv", "index,difficulty\n0,hard\n"))
    lengths = write(tmp_path, "l.csv", "index,len_baseline,len_verbose,len_concise\n7,10,20,5\n")
    good = write(tmp_path, "g.json", '{"S_tanh": -1, "S_difficulty": 2.5, "gamed_weight": 0.1}')
    with pytest.raises(ConfigError, match="no difficulty"):
        read_gamed(good, lengths, {"0": 1.0})
    for text, problem in [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"S_tanh": 1, "S_difficulty": 2}', "gamed_weight is missing"),
        ('{"S_tanh": "1", "S_difficulty": 2, "gamed_weight": 0.1}', "S_tanh is missing or not"),
        ('{"S_tanh": NaN, "S_difficulty": 2, "gamed_weight": 0.1}', "S_tanh is missing or not"),
        ('{"S_tanh": 1, "S_difficulty": 2, "gamed_weight": -1}', "gamed_weight is missing or not"),
    ]:
        with pytest.raises(ConfigError, match=problem):
            read_gamed(write(tmp_path, "bad.json", text), lengths, {"7": 1.0})


def test_impossible_gamed_sums_are_an_error_and_not_a_score(tmp_path):
    battles, d = made_battles(models=1)
    block = GamedBlock(np.array([0.5, -0.5]), np.array([1.0, -1.0]), 1e6, 0.0, 0.1)
    with pytest.raises(LocalismError, match="did not converge"):
        compat_length_controlled(battles, d, block, seed=0, resamples=5)


# --- the report -----------------------------------------------------------------------------


def small_files(folder):
    rng = np.random.default_rng(3)
    lines = [
        f"{model},{i},{1 + rng.random():.6f},{rng.integers(100, 900)},{rng.integers(100, 900)}\n"
        for model in ("a", "b", "c")
        for i in range(40)
    ]
    preferences = write(folder, "p.csv", HEADER + "".join(lines))
    difficulty = write(
        folder,
        "d.csv",
        "index,difficulty\n" + "".join(f"{i},{rng.normal():.4f}\n" for i in range(40)),
    )
    return preferences, difficulty


def test_the_report_is_one_json_object_a_model(tmp_path):
    preferences, difficulty = small_files(tmp_path)
    for options in ({}, {"compat": True, "difficulty": difficulty}):
        report = winrate_report(preferences, resamples=50, **options)
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert [row["model"] for row in report] == ["a", "b", "c"]
        for row in report:
            assert row["low"] < row["lc_win_rate"] < row["high"]
            assert row["win_rate_low"] < row["win_rate"] < row["win_rate_high"]
            assert row["standard_error"] > 0
        best = max(report, key=lambda row: row["lc_win_rate"])
        assert [row["best"] for row in report].count(True) == 1
        assert best["best"] and best["tied"]


def test_a_model_that_was_never_scored_is_null_throughout(tmp_path):
    preferences, difficulty = small_files(tmp_path)
    text = preferences.read_text() + "".join(f"silent,{i},,,\n" for i in range(40))
    preferences.write_text(text)
    for options in ({}, {"compat": True, "difficulty": difficulty}):
        silent = winrate_report(preferences, resamples=20, **options)[3]
        absent = ("win_rate", "standard_error", "lc_win_rate", "low", "high", "lc_standard_error")
        assert all(silent[key] is None for key in absent)
        assert (silent["n"], silent["unscored"], silent["tied"]) == (0, 40, False)


def test_options_that_do_not_go_together_are_usage_errors(tmp_path):
    preferences, difficulty = small_files(tmp_path)
    for options in (
        {"compat": True},
        {"difficulty": difficulty},
        {"compat": True, "difficulty": difficulty, "gamed": difficulty},
        {"compat": True, "difficulty": difficulty, "gamed_lengths": difficulty},
        {"compat": True, "difficulty": difficulty, "phi_calibrated": -1.0},
    ):
        with pytest.raises(UsageError) as refusal:
            winrate_report(preferences, **options)
        assert refusal.value.exit_code == 2


def test_an_index_without_difficulty_is_refused_by_name(tmp_path):
    preferences, difficulty = small_files(tmp_path)
    difficulty.write_text("".join(difficulty.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ConfigError, match="1 of 40 indices have no difficulty, as '39'"):
        winrate_report(preferences, compat=True, difficulty=difficulty)


def test_a_known_slope_of_the_judge_moves_the_scores_and_nonsense_is_refused(tmp_path):
    preferences, difficulty = small_files(tmp_path)

    def asked(*options):
        return CliRunner().invoke(cli, ["winrate", str(preferences), "--json", *options])

    plain, steep = (
        [json.loads(line) for line in asked(*options).output.splitlines()]
        for options in ((), ("--length-slope", "-3"))
    )
    assert [row["win_rate"] for row in plain] == [row["win_rate"] for row in steep]
    assert all(
        abs(a["lc_win_rate"] - b["lc_win_rate"]) > 0.01 for a, b in zip(plain, steep, strict=True)
    )
    expected = winrate_report(preferences, phi_calibrated=-3.0)[0]
    assert steep[0]["lc_win_rate"] == pytest.approx(expected["lc_win_rate"])
    for wrong in ("-21", "nan"):
        assert isinstance(asked("--length-slope", wrong).exception, UsageError)
    both = asked("--length-slope", "-1", "--compat", "--difficulty", str(difficulty))
    assert isinstance(both.exception, UsageError) and "--length-slope" in both.exception.problem


# --- public leaderboard data ----------------------------------------------------------------


@pytest.fixture(scope="module")
def folder():
    """The folder with 12 public AlpacaEval 2 models."""
    repository = Path(__file__).resolve().parents[2]
    shared = Path(os.environ.get("LOCALISM_SHARED", repository.parent / "shared"))
    path = shared / "data" / "alpacaeval"
    if not path.is_dir():
        pytest.skip(f"no {path}: set LOCALISM_SHARED to the folder that holds data/alpacaeval")
    return path


@pytest.mark.parametrize(("exact", "mean", "largest"), [(True, 0.045, 0.12), (False, 0.11, 0.7)])
def test_compat_reproduces_the_leaderboard(folder, exact, mean, largest):
    gamed = {
        "gamed": folder / "gamed_constants.json",
        "gamed_lengths": folder / "gamed_lengths.csv",
    }
    report = winrate_report(
        folder / "preferences.csv",
        compat=True,
        difficulty=folder / "instruction_difficulty.csv",
        resamples=20,
        **(gamed if exact else {}),
    )
    with open(folder / "expected.csv", encoding="utf-8") as file:
        official = {
            row["model"]: float(row["length_controlled_winrate"]) for row in csv.DictReader(file)
        }
    errors = np.array([row["lc_win_rate"] - official[row["model"]] for row in report])
    assert len(errors) == 12
    assert np.abs(errors).mean() < mean
    assert np.abs(errors).max() < largest
