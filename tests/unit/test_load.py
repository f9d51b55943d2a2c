"""How many requests are kept going: vLLM's figures read, and the limit on made-up series."""

import pytest

from localism.serving.load import (
    LONG_LOOKS,
    QUEUED,
    Beat,
    Figures,
    Limit,
    Load,
    read_figures,
    together,
)

PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a } b"} 60.0
vllm:num_requests_running{engine="1",model_name="a } b"} 4.0
vllm:num_requests_waiting{engine="0",model_name="a } b"} 3.0
vllm:num_requests_waiting{engine="1",model_name="a } b"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a } b",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="a } b"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a } b"} 0.75
vllm:num_preemptions_total{engine="0",model_name="a } b"} 7.0
vllm:num_preemptions_created{engine="0",model_name="a } b"} 1.79e+09
process_open_fds 99.0
"""


def test_engines_of_one_server_are_summed_and_its_fullest_cache_counts():
    figures = read_figures(PAGE)
    assert figures[:4] == Figures(running=64, waiting=3, cache=0.75, preempted=7)[:4]


def test_each_engine_of_a_server_has_a_beat_of_its_own():
    beats = read_figures(PAGE).beats
    assert beats["0"] == Beat(True, 0.0, (60.0, 3.0, 0.0, 0.25, 7.0))
    assert beats["1"] == Beat(True, 0.0, (4.0, 0.0, 0.0, 0.75, 0.0))
    idle = read_figures(PAGE.replace("} 4.0", "} 0.0")).beats["1"]
    assert not idle.is_busy


@pytest.mark.parametrize("page", ["", "<html>not found</html>", "process_open_fds 99.0\n"])
def test_a_page_that_is_not_vllms_has_no_figures(page):
    assert read_figures(page) is None


def test_several_servers_sum_up_with_the_shortest_queue_for_all():
    busy, free = Figures(64, 90, 0.9, 7), Figures(100, 0, 0.2, 50)
    restarted = Figures(100, 0, 0.2, 900)
    assert together([(busy, Figures(0, 0, 0, 5)), (free, restarted)]) == Load(164, 0, 0.9, 2)
    assert together([(busy, None)]).preempted == 0


class Server:
    """An engine with so many places, and a cache for so many sequences; it shares out what comes.

    Requests beyond the places wait; running ones beyond the cache are thrown out and wait too.
    """

    def __init__(self, places: int, cache: int = 10**9, others: int = 0) -> None:
        self.places, self.cache, self.others = places, cache, others

    def load(self, active: int) -> Load:
        here = active + self.others
        placed = min(here, self.places)
        running = min(placed, self.cache)
        return Load(running, here - running, running / self.cache, placed - running)


def followed(limit: Limit, server: Server, looks: int) -> list[int]:
    """The limit after each of so many looks; whoever is too much leaves by the next one."""
    return [limit.follow(server.load(limit.now), limit.now) for _ in range(looks)]


def test_a_server_with_more_places_than_believed_is_full_in_a_few_looks():
    limit = Limit(10, most=4000)
    series = followed(limit, Server(places=256), 60)
    assert next(look for look, now in enumerate(series) if now >= 256) < 20
    assert all(256 < now <= 1.6 * 256 for now in series[20:])
    assert series == sorted(series)


def test_a_short_queue_is_left_alone():
    assert set(followed(Limit(80, most=4000), Server(places=64), 100)) == {80}


def test_a_long_queue_shrinks_to_a_quarter_of_what_runs_once_it_has_stayed():
    series = followed(Limit(320, most=4000), Server(places=64), 40)
    assert series[: LONG_LOOKS - 1] == [320] * (LONG_LOOKS - 1)
    assert set(series[LONG_LOOKS:]) == {int(QUEUED * 64)}


def test_a_queue_while_long_prompts_are_read_in_changes_nothing():
    limit = Limit(320, most=4000)
    for running in range(4, 260, 4):
        assert limit.follow(Load(running, 320 - running, 0.1, 0), 320) == 320


def test_what_is_between_turns_is_not_taken_for_a_queue():
    limit = Limit(400, most=4000)
    for _ in range(40):  # 64 run, 48 wait, and 288 are on this side
        limit.follow(Load(64, 48, 0.1, 0), 400)
    assert limit.now == int(QUEUED * 64) + 288


def test_another_user_of_the_server_does_not_push_us_below_what_fills_it():
    series = followed(Limit(320, most=4000), Server(places=64, others=1000), 60)
    assert min(series) == int(QUEUED * 64)


def test_preemptions_bring_it_below_what_runs_and_the_way_back_is_slow():
    limit = Limit(320, most=4000)
    series = followed(limit, Server(places=256, cache=100), 60)
    assert series[0] == 90
    assert all(later <= before + 2 for before, later in zip(series, series[1:], strict=False))
    assert max(series) <= 110


def test_a_few_preemptions_in_a_large_batch_are_no_reason():
    limit = Limit(320, most=4000)
    assert limit.follow(Load(256, 64, 0.8, 2), 320) == 320


def test_a_nearly_full_cache_ends_the_way_up():
    limit = Limit(80, most=4000)
    for _ in range(20):
        limit.follow(Load(limit.now, 0, 0.85, 0), limit.now)
    assert limit.now == 80


def test_where_this_side_is_what_takes_the_time_more_would_not_help():
    limit = Limit(80, most=4000)
    assert [limit.follow(Load(30, 0, 0.1, 0), 80) for _ in range(20)] == [80] * 20


def test_the_last_items_of_a_stage_do_not_raise_it():
    limit = Limit(80, most=4000)
    assert limit.follow(Load(40, 0, 0.1, 0), active=40) == 80


def test_it_waits_until_those_too_many_have_ended_before_it_goes_lower():
    limit = Limit(320, most=4000)
    assert limit.follow(Load(100, 220, 1.0, 50), 320) == 90
    assert limit.follow(Load(95, 200, 1.0, 50), 300) == 90


def test_it_never_exceeds_the_most_and_a_fixed_one_never_moves():
    assert max(followed(Limit(80, most=100), Server(places=256), 30)) == 100
    assert set(followed(Limit(8, most=4000, is_fixed=True), Server(places=256), 30)) == {8}
