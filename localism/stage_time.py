"""How long each stage was worked on, and how long it was expected to take: for report and plans.

A stage begins with `stage_started` and ends with `stage_finished`, possibly several times: it is
started again after an interruption, and after it was opened again. What lies between counts, but
not the hours before a start, for nobody worked then, and no gap before a call that took much less
than the gap and ended more than IDLE_SECONDS after the moment before it: then the machine slept.
Work of an interrupted try counts until the last thing that it wrote.

What was expected is in the last event `planned` before the stage ended; a stage that was opened
again had more to do than was planned, and is compared with nothing.
"""

IDLE_SECONDS = 600

STAGES = f"""
WITH own_turn AS (                        -- what a fork carried over is its parent's
    SELECT stage, finished_at, seconds
    FROM turn ANTI JOIN event e ON e.kind = 'forked' AND turn.finished_at <= e.happened_at
), finished AS (
    SELECT stage, max(happened_at) AS ended, arg_max(detail->>'summary', happened_at) AS summary
    FROM event WHERE kind = 'stage_finished' GROUP BY stage
), started AS (
    SELECT stage, count(*) AS tries, min(happened_at) AS began
    FROM event WHERE kind = 'stage_started' GROUP BY stage
), moments AS (
    SELECT stage, happened_at AS moment, kind, NULL::DOUBLE AS call_seconds
    FROM event WHERE stage IS NOT NULL AND kind <> 'stage_reopened'
    UNION ALL
    SELECT stage, finished_at, NULL, seconds FROM own_turn
), gaps AS (
    SELECT stage, kind, call_seconds, epoch(moment - lag(moment) OVER before) AS seconds,
           -- The last border before: odd for a start. (last_value IGNORE NULLS takes ten times as
           -- long over a million calls.)
           max(CASE kind WHEN 'stage_started' THEN 2 * epoch_us(moment) + 1
                         WHEN 'stage_finished' THEN 2 * epoch_us(moment) END) OVER (
               before ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) % 2 AS is_between
    FROM moments JOIN finished USING (stage) WHERE moment <= ended
    WINDOW before AS (PARTITION BY stage ORDER BY moment)
), worked AS (
    SELECT stage, sum(seconds) AS seconds FROM gaps
    WHERE is_between = 1 AND kind IS DISTINCT FROM 'stage_started'
      AND (call_seconds IS NULL OR seconds < greatest({IDLE_SECONDS}, 2 * call_seconds))
    GROUP BY stage
), planned AS (
    SELECT happened_at, unnest(from_json(detail->'$.stages',
           '[{{"stage": "TEXT", "seconds": "DOUBLE", "basis": "TEXT"}}]'), recursive := true)
    FROM event WHERE kind = 'planned'
), predicted AS (
    SELECT stage, arg_max(p.seconds, happened_at) AS predicted,
           arg_max(basis, happened_at) AS basis
    FROM planned p LEFT JOIN finished USING (stage)
    WHERE (ended IS NULL OR happened_at <= ended) AND stage NOT IN
          (SELECT stage FROM event WHERE kind = 'stage_reopened')
    GROUP BY stage
)
SELECT stage, summary, tries, began, ended,
       CASE WHEN ended IS NOT NULL THEN coalesce(worked.seconds, 0) END AS seconds,
       predicted, basis
FROM started LEFT JOIN finished USING (stage) LEFT JOIN worked USING (stage)
LEFT JOIN predicted USING (stage)
ORDER BY began
"""
"""A row a stage that was ever started: summary, ended and seconds are NULL until it was finished
once, and then speak of its last end; predicted (seconds) and basis where nobody planned."""
