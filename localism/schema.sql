-- The corpus of one run.  Tables first, then the views that are the public interface for SQL
-- (docs/sql.md).  Ids are hashes of content or of (seed, ordinal); see records.stable_id.

CREATE TABLE IF NOT EXISTS run (
    run_id       TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    created_at   TIMESTAMP NOT NULL,
    version      TEXT NOT NULL,          -- of localism
    recipe       JSON NOT NULL,          -- the whole validated configuration, frozen
    recipe_hash  TEXT NOT NULL,
    rehearsal    BOOLEAN NOT NULL        -- true when a model of the miniature takes part
);

CREATE TABLE IF NOT EXISTS asset (        -- what came from outside: models, prompts, seed files
    asset_id     TEXT PRIMARY KEY,
    role         TEXT NOT NULL,           -- teacher, judge, ..., prompts, seeds, benchmarks
    path         TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    parameters   BIGINT,                  -- of a model, from its safetensors headers
    bytes        BIGINT
);

CREATE TABLE IF NOT EXISTS seed_example ( -- input of SDD
    seed_id      TEXT PRIMARY KEY,
    source       TEXT NOT NULL,
    ordinal      BIGINT NOT NULL,
    instruction  TEXT NOT NULL,
    response     TEXT,
    cluster_id   TEXT,                    -- the skill cluster that it exhibits, set by cluster
    assigned_by  TEXT,                    -- teacher, or label when its own labels decided
    assigned_turn_id TEXT
);

CREATE TABLE IF NOT EXISTS topic (
    topic_id     TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    field        TEXT,                    -- of a taxonomy: field > subject > topic
    subject      TEXT,
    ordinal      INTEGER NOT NULL,
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS query_type (
    query_type_id TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    definition   TEXT,
    ordinal      INTEGER NOT NULL,
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS skill_label (  -- one row each time a wanted label was given
    label_id     TEXT PRIMARY KEY,
    raw          TEXT NOT NULL,           -- as the teacher wrote it
    name         TEXT,                    -- normalised; NULL when it is unusable
    unusable     TEXT,                    -- why no skill could be made of it, or who dropped it
    skill_id     TEXT,                    -- set by cluster
    source       TEXT NOT NULL,           -- sda, sdd, or the name of an imported file
    topic_id     TEXT,
    seed_id      TEXT,
    reason       TEXT,
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS skill (
    skill_id     TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    cluster_id   TEXT NOT NULL,
    rare         BOOLEAN NOT NULL,        -- HDBSCAN called it noise: a cluster of one
    count        BIGINT NOT NULL,         -- labels that point to it
    hdbscan_label INTEGER NOT NULL,       -- -1 is noise, also where the noise policy found it a home
    strength     DOUBLE NOT NULL,         -- HDBSCAN membership strength, 0 to 1
    map_x        DOUBLE,                  -- its place on the two-dimensional map of the report
    map_y        DOUBLE
);

CREATE TABLE IF NOT EXISTS cluster (
    cluster_id   TEXT PRIMARY KEY,
    name         TEXT NOT NULL,           -- its medoid's, unless the teacher named it
    medoid       TEXT NOT NULL,           -- name of its most central skill
    size         INTEGER NOT NULL,        -- skills
    persistence  DOUBLE,                  -- HDBSCAN cluster persistence; NULL for a rare skill
    keywords     TEXT                     -- c-TF-IDF terms of the members
);

CREATE TABLE IF NOT EXISTS cluster_quality (
    metric       TEXT PRIMARY KEY,        -- clusters, noise_share, relative_validity, silhouette, ...
    value        DOUBLE,                  -- NULL when it could not be computed
    warning      TEXT                     -- when it looks bad: what, and what to change
);

CREATE TABLE IF NOT EXISTS embedding (    -- vectors by content, so that no text is embedded twice
    text_hash    TEXT NOT NULL,
    embedder     TEXT NOT NULL,           -- fingerprint of the embedding model
    vector       FLOAT[] NOT NULL,        -- of unit length
    PRIMARY KEY (text_hash, embedder)
);

CREATE TABLE IF NOT EXISTS mix (
    mix_id       TEXT PRIMARY KEY,
    ordinal      BIGINT NOT NULL,
    k            INTEGER NOT NULL,
    query_type_id TEXT,
    split        TEXT NOT NULL CHECK (split IN ('train', 'dev', 'test')),
    top_up       BOOLEAN NOT NULL DEFAULT false  -- planned later, where curation had left a hole
);

CREATE TABLE IF NOT EXISTS mix_skill (
    mix_id       TEXT NOT NULL,
    position     INTEGER NOT NULL,
    skill_id     TEXT NOT NULL,
    PRIMARY KEY (mix_id, position)
);

CREATE TABLE IF NOT EXISTS turn (         -- the ledger: every model call
    turn_id      TEXT PRIMARY KEY,
    parent_id    TEXT,                    -- the turn before it in the same conversation
    stage        TEXT NOT NULL,
    role         TEXT NOT NULL,           -- teacher, judge, student
    template     TEXT NOT NULL,           -- prompt template, or the turn's name in the pack; 'instruction' for a bare one
    prompt       TEXT NOT NULL,           -- the user message that was added
    prompt_hash  TEXT NOT NULL,
    model_fingerprint TEXT NOT NULL,
    sampling     JSON NOT NULL,
    sample       INTEGER NOT NULL,        -- which of several samples of the same conversation
    text         TEXT NOT NULL,
    logprobs     JSON,                    -- of the asked labels, when the call was a choice
    finish_reason TEXT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    seconds      DOUBLE NOT NULL,         -- from sending to the last byte
    finished_at  TIMESTAMP NOT NULL
);

CREATE TABLE IF NOT EXISTS candidate (
    mix_id       TEXT PRIMARY KEY,
    instruction  TEXT,                    -- NULL when the last turn did not parse
    response     TEXT,
    status       TEXT NOT NULL CHECK (status IN ('written', 'accepted', 'rejected', 'failed')),
    reason       TEXT,                    -- why it was rejected, did not parse, or failed
    turn_id      TEXT,                    -- the last turn of its conversation
    completion_tokens BIGINT,             -- of all turns of its conversation
    instruction_tokens BIGINT,            -- of the student's tokenizer, counted by curate
    response_tokens BIGINT
);

CREATE TABLE IF NOT EXISTS verdict (
    mix_id       TEXT NOT NULL,
    gate         TEXT NOT NULL,
    passed       BOOLEAN NOT NULL,
    reason       TEXT,
    value        DOUBLE,
    PRIMARY KEY (mix_id, gate)
);

CREATE TABLE IF NOT EXISTS training_set ( -- variants to train on beside the accepted examples
    set_name     TEXT PRIMARY KEY,
    kind         TEXT NOT NULL,           -- brevity, junk, longest, random, split, k, teacher
    source       TEXT NOT NULL,           -- accepted, another set, or a file
    settings     JSON NOT NULL,           -- what it was made with
    planned      BIGINT NOT NULL          -- examples asked for
);

CREATE TABLE IF NOT EXISTS set_example (
    set_name     TEXT NOT NULL,
    ordinal      BIGINT NOT NULL,
    mix_id       TEXT,                    -- whose skills it has, or some of them; NULL from a file
    skills       TEXT[] NOT NULL,         -- names; empty from a file
    instruction  TEXT,
    response     TEXT,
    status       TEXT NOT NULL CHECK (status IN ('accepted', 'rejected', 'failed')),
    reason       TEXT,                    -- why it was rejected or failed
    changed      BOOLEAN NOT NULL,        -- written for this set; otherwise as in its source
    turn_id      TEXT,                    -- the call that wrote what is new in it
    instruction_tokens BIGINT,            -- of the student's tokenizer
    response_tokens BIGINT,
    PRIMARY KEY (set_name, ordinal)
);

CREATE TABLE IF NOT EXISTS training (     -- one fine-tuning of the base
    name         TEXT PRIMARY KEY,        -- main, or after its set and seed
    set_name     TEXT NOT NULL,           -- accepted, or one of table training_set
    seed         BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS checkpoint (
    checkpoint_id TEXT PRIMARY KEY,       -- epoch-03; of other trainings than main, NAME/epoch-03
    training     TEXT NOT NULL DEFAULT 'main',
    epoch        INTEGER NOT NULL,
    step         BIGINT NOT NULL,
    path         TEXT NOT NULL,           -- relative to the run folder; 'removed' by [train].keep
    fingerprint  TEXT NOT NULL,
    train_loss   DOUBLE,                  -- mean over the epoch's logged steps
    dev_loss     DOUBLE,                  -- mean token cross-entropy of the references on dev
    picked       BOOLEAN NOT NULL DEFAULT false,
    tied         BOOLEAN NOT NULL DEFAULT false  -- cannot be told from the best on dev
);

-- Corpora of before there were trainings beside main.
ALTER TABLE checkpoint ADD COLUMN IF NOT EXISTS training TEXT DEFAULT 'main';
-- ... and of before examples were counted in tokens.
ALTER TABLE candidate ADD COLUMN IF NOT EXISTS instruction_tokens BIGINT;
ALTER TABLE candidate ADD COLUMN IF NOT EXISTS response_tokens BIGINT;
ALTER TABLE set_example ADD COLUMN IF NOT EXISTS instruction_tokens BIGINT;
ALTER TABLE set_example ADD COLUMN IF NOT EXISTS response_tokens BIGINT;

CREATE TABLE IF NOT EXISTS answer (
    answer_id    TEXT PRIMARY KEY,
    model_id     TEXT NOT NULL,           -- a checkpoint_id, or 'base'
    mix_id       TEXT NOT NULL,
    split        TEXT NOT NULL,
    text         TEXT,                    -- NULL when the call failed
    finish_reason TEXT NOT NULL,
    reason       TEXT,
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS judgment (
    judgment_id  TEXT PRIMARY KEY,
    answer_id    TEXT NOT NULL,
    model_id     TEXT NOT NULL,
    mix_id       TEXT NOT NULL,
    split        TEXT NOT NULL,
    answer_first BOOLEAN NOT NULL,        -- the model's answer was shown before the reference
    preference   DOUBLE,                  -- P(the model's answer is better); NULL is unscored
    mass         DOUBLE,                  -- probability of the two labels together
    reason       TEXT,                    -- why it is unscored
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS score (
    model_id     TEXT NOT NULL,
    split        TEXT NOT NULL,
    metric       TEXT NOT NULL,
    value        DOUBLE,                  -- NULL when nothing was scored
    low          DOUBLE,                  -- 95% interval
    high         DOUBLE,
    n            BIGINT NOT NULL,
    unscored     BIGINT NOT NULL,
    note         TEXT,                    -- what belongs beside the number
    PRIMARY KEY (model_id, split, metric)
);

-- Benchmarks beside the run's own test prompts (localism evaluate --suite): what was asked, what
-- every model answered, what the judge said of it, and what came out.

CREATE TABLE IF NOT EXISTS suite (
    suite        TEXT PRIMARY KEY,        -- alpacaeval, mt-bench, ..., or the stem of a file
    protocol     TEXT NOT NULL,           -- whose rules it is scored by
    source       TEXT NOT NULL,           -- where the items came from
    fingerprint  TEXT NOT NULL,           -- of the items, in order
    items        BIGINT NOT NULL,
    is_sample    BOOLEAN NOT NULL,        -- the few items that ship with localism, not the benchmark
    note         TEXT                     -- what belongs beside its scores
);

CREATE TABLE IF NOT EXISTS suite_item (
    item_id      TEXT PRIMARY KEY,        -- of suite and content
    suite        TEXT NOT NULL,
    ordinal      BIGINT NOT NULL,
    own_id       TEXT NOT NULL,           -- as the benchmark calls it
    turns        TEXT[] NOT NULL,         -- user messages
    reference    TEXT,                    -- the answer to compare with, or a right one
    category     TEXT,
    tags         TEXT[] NOT NULL,
    detail       JSON NOT NULL            -- what else its protocol needs
);

CREATE TABLE IF NOT EXISTS suite_answer (
    suite_answer_id TEXT PRIMARY KEY,
    suite        TEXT NOT NULL,
    item_id      TEXT NOT NULL,
    model_id     TEXT NOT NULL,           -- base, a checkpoint_id, or the folder name of a model
    turn         INTEGER NOT NULL,        -- from 1
    sample       INTEGER NOT NULL,        -- from 0
    text         TEXT,                    -- NULL when the call failed
    finish_reason TEXT NOT NULL,
    reason       TEXT,                    -- why it failed
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS suite_judgment (
    suite_judgment_id TEXT PRIMARY KEY,
    suite        TEXT NOT NULL,
    item_id      TEXT NOT NULL,
    model_id     TEXT NOT NULL,
    judge        TEXT NOT NULL,
    aspect       TEXT NOT NULL,           -- what was asked: answer-first, turn-2, skill:readability, ...
    sample       INTEGER NOT NULL,        -- of the answer, or of the judgment where it is repeated
    value        DOUBLE,                  -- on the protocol's own scale; NULL is unscored
    label        TEXT,                    -- the verdict as the judge gave it
    reason       TEXT,                    -- why it is unscored, or was decided without the judge
    turn_id      TEXT
);

CREATE TABLE IF NOT EXISTS suite_score (
    suite        TEXT NOT NULL,
    model_id     TEXT NOT NULL,
    judge        TEXT NOT NULL,           -- '' where no judge takes part
    metric       TEXT NOT NULL,
    part         TEXT NOT NULL,           -- '' is the whole suite; else a category, skill or task
    value        DOUBLE,                  -- NULL when nothing was scored
    low          DOUBLE,                  -- 95% interval
    high         DOUBLE,
    n            BIGINT NOT NULL,
    unscored     BIGINT NOT NULL,
    note         TEXT,
    PRIMARY KEY (suite, model_id, judge, metric, part)
);

CREATE TABLE IF NOT EXISTS judge_check (  -- how far a judge can be trusted (localism judge check)
    judge        TEXT NOT NULL,
    metric       TEXT NOT NULL,           -- agreement, position_bias, length_slope, self_preference, ...
    value        DOUBLE,
    low          DOUBLE,
    high         DOUBLE,
    n            BIGINT NOT NULL,
    unscored     BIGINT NOT NULL,
    note         TEXT,
    PRIMARY KEY (judge, metric)
);

CREATE TABLE IF NOT EXISTS event (
    event_id     TEXT PRIMARY KEY,
    happened_at  TIMESTAMP NOT NULL,
    stage        TEXT,
    kind         TEXT NOT NULL,           -- stage_finished, engine_started, engine_failed, ...
    detail       JSON
);

------------------------------------------------------------------------------------------------
-- Views
------------------------------------------------------------------------------------------------

-- What was planned for each stage and what became of it; balanced when
-- planned = accepted + rejected + failed + pending. Trainings beside main and training sets have
-- rows of their own, with the name behind the stage.
CREATE OR REPLACE VIEW books AS
WITH kept AS (
    SELECT m.split, count(*) AS n
    FROM mix m JOIN candidate c USING (mix_id) WHERE c.status = 'accepted' GROUP BY m.split
), models AS (                            -- who answers; the base is asked once, for main
    SELECT checkpoint_id AS model_id, training, 'dev' AS split, 'pick' AS stage FROM checkpoint
    UNION ALL
    SELECT checkpoint_id, training, 'test', 'evaluate' FROM checkpoint WHERE picked
    UNION ALL
    SELECT DISTINCT 'base', 'main', 'test', 'evaluate' FROM checkpoint WHERE picked
), asked AS (
    SELECT stage, CASE training WHEN 'main' THEN '' ELSE ' ' || training END AS of_training,
           model_id, split, coalesce(kept.n, 0) AS planned
    FROM models LEFT JOIN kept USING (split)
), answered AS (
    SELECT model_id, split, count(*) AS rows, count(text) AS texts FROM answer GROUP BY ALL
), scored AS (
    SELECT model_id, split, count(*) AS rows, count(preference) AS preferences
    FROM judgment GROUP BY ALL
), shown AS (                             -- judgments of each answer
    SELECT CASE WHEN bool_or(recipe->>'$.pick.both_orders' = 'false'
                             OR recipe->>'$.judge.kind' = 'likelihood') THEN 1 ELSE 2 END AS orders
    FROM run
)
SELECT 'cluster' AS stage, count(*) AS planned,
       count(skill_id) AS accepted,
       count(*) FILTER (skill_id IS NULL AND unusable IS NOT NULL) AS rejected,
       0 AS failed,
       count(*) FILTER (skill_id IS NULL AND unusable IS NULL) AS pending
FROM skill_label
UNION ALL
SELECT 'generate', count(*), count(*) FILTER (c.status <> 'failed'), 0,
       count(*) FILTER (c.status = 'failed'), count(*) FILTER (c.status IS NULL)
FROM mix LEFT JOIN candidate c USING (mix_id)
UNION ALL
SELECT 'curate', count(*), count(*) FILTER (status = 'accepted'),
       count(*) FILTER (status = 'rejected'), 0, count(*) FILTER (status = 'written')
FROM candidate WHERE status <> 'failed'
UNION ALL
SELECT 'variant ' || set_name, any_value(planned), count(*) FILTER (status = 'accepted'),
       count(*) FILTER (status = 'rejected'), count(*) FILTER (status = 'failed'),
       any_value(planned) - count(status)
FROM training_set LEFT JOIN set_example USING (set_name) GROUP BY set_name
UNION ALL
SELECT stage || '/answers' || of_training, sum(planned)::BIGINT, sum(coalesce(texts, 0))::BIGINT, 0,
       sum(coalesce(rows - texts, 0))::BIGINT, sum(planned - coalesce(rows, 0))::BIGINT
FROM asked LEFT JOIN answered USING (model_id, split) GROUP BY stage, of_training
UNION ALL
SELECT stage || '/judgments' || of_training, sum(orders * texts)::BIGINT, sum(coalesce(preferences, 0))::BIGINT,
       sum(coalesce(scored.rows - preferences, 0))::BIGINT, 0,
       sum(orders * texts - coalesce(scored.rows, 0))::BIGINT
FROM shown, asked JOIN answered USING (model_id, split)
LEFT JOIN scored USING (model_id, split) GROUP BY stage, of_training
ORDER BY list_position(
    ['cluster', 'generate', 'curate', 'variant', 'pick', 'evaluate'],
    regexp_extract(stage, '^[a-z]+')
), stage;

-- Model calls and tokens by stage and role; those that a fork carried over are its parent's.
CREATE OR REPLACE VIEW tokens AS
SELECT stage, role, count(*) AS calls, sum(prompt_tokens)::BIGINT AS prompt_tokens,
       sum(completion_tokens)::BIGINT AS completion_tokens,
       round(sum(seconds), 1) AS request_seconds
-- Not as WHERE finished_at > (SELECT ...): DuckDB 2.0 then orders sums in too few bits.
FROM turn ANTI JOIN event e ON e.kind = 'forked' AND turn.finished_at <= e.happened_at
GROUP BY stage, role ORDER BY min(finished_at);

-- One row a planned mix and what became of it; the coverage views below count these rows. Each mix
-- counts whole for each of its skills, as do its tokens: tokens / generated is an example's length.
CREATE OR REPLACE VIEW mix_outcome AS
WITH judged AS (                          -- other ways of looking for skills ask no judge
    SELECT mix_id, value FROM verdict
    WHERE gate = 'skills' AND (SELECT bool_or(recipe->>'$.curate.skills' = 'judge') FROM run)
)
SELECT m.mix_id, m.split, m.query_type_id,
       coalesce(c.status IN ('written', 'accepted', 'rejected'), false) AS generated,
       coalesce(c.status = 'accepted', false) AS accepted,
       coalesce(c.status = 'rejected', false) AS rejected,
       coalesce(c.completion_tokens, 0) AS tokens, judged.value AS judge_score
FROM mix m LEFT JOIN candidate c USING (mix_id) LEFT JOIN judged USING (mix_id);

CREATE OR REPLACE VIEW skill_coverage AS
WITH used AS (
    SELECT skill_id, count(*) AS planned, count(*) FILTER (generated) AS generated,
           count(*) FILTER (accepted) AS accepted, count(*) FILTER (rejected) AS rejected,
           sum(tokens)::BIGINT AS tokens, avg(judge_score) AS mean_judge_score
    FROM mix_skill JOIN mix_outcome USING (mix_id) GROUP BY skill_id
), shown AS (
    SELECT skill_id, count(DISTINCT seed_id) AS exemplars FROM skill_label
    WHERE seed_id IS NOT NULL GROUP BY skill_id
)
SELECT s.name AS skill, cl.name AS cluster, s.rare,
       coalesce(planned, 0) AS planned, coalesce(generated, 0) AS generated,
       coalesce(accepted, 0) AS accepted, coalesce(rejected, 0) AS rejected,
       coalesce(tokens, 0) AS tokens, round(mean_judge_score, 4) AS mean_judge_score,
       coalesce(exemplars, 0) AS exemplars
FROM skill s JOIN cluster cl USING (cluster_id)
LEFT JOIN used USING (skill_id) LEFT JOIN shown USING (skill_id)
ORDER BY skill;

CREATE OR REPLACE VIEW skill_rejections AS
SELECT s.name AS skill, coalesce(v.gate, 'call') AS gate,
       split_part(c.reason, ': ', 1) AS reason, count(*) AS n
FROM candidate c JOIN mix_skill USING (mix_id) JOIN skill s USING (skill_id)
LEFT JOIN verdict v ON v.mix_id = c.mix_id AND NOT v.passed
WHERE c.status IN ('rejected', 'failed')
GROUP BY ALL ORDER BY n DESC, skill, gate, reason;

CREATE OR REPLACE VIEW pair_coverage AS
WITH used AS (
    SELECT least(x.skill_id, y.skill_id) AS one, greatest(x.skill_id, y.skill_id) AS other,
           count(*) AS planned, count(*) FILTER (generated) AS generated,
           count(*) FILTER (accepted) AS accepted, count(*) FILTER (rejected) AS rejected
    FROM mix_skill x JOIN mix_skill y ON x.mix_id = y.mix_id AND x.position < y.position
    JOIN mix_outcome o ON o.mix_id = x.mix_id
    GROUP BY ALL
)
SELECT least(a.name, b.name) AS skill_a, greatest(a.name, b.name) AS skill_b,
       planned, generated, accepted, rejected
FROM used JOIN skill a ON a.skill_id = one JOIN skill b ON b.skill_id = other
ORDER BY planned DESC, skill_a, skill_b;

-- Not ordered, so that LIMIT ends the search: n skills have n(n-1)/2 pairs.
CREATE OR REPLACE VIEW unused_pairs AS
SELECT a.name AS skill_a, b.name AS skill_b, ca.name AS cluster_a, cb.name AS cluster_b
FROM skill a JOIN skill b ON a.name < b.name
JOIN cluster ca ON ca.cluster_id = a.cluster_id JOIN cluster cb ON cb.cluster_id = b.cluster_id
ANTI JOIN (
    SELECT x.skill_id AS one, y.skill_id AS other
    FROM mix_skill x JOIN mix_skill y ON x.mix_id = y.mix_id AND x.position <> y.position
) used ON one = a.skill_id AND other = b.skill_id;

CREATE OR REPLACE VIEW cluster_coverage AS
WITH members AS (                         -- a mix counts once, also when both skills are in it
    SELECT DISTINCT s.cluster_id, ms.mix_id FROM mix_skill ms JOIN skill s USING (skill_id)
), used AS (
    SELECT cluster_id, count(*) AS planned, count(*) FILTER (generated) AS generated,
           count(*) FILTER (accepted) AS accepted, count(*) FILTER (rejected) AS rejected,
           sum(tokens)::BIGINT AS tokens
    FROM members JOIN mix_outcome USING (mix_id) GROUP BY cluster_id
)
SELECT cl.name AS cluster, cl.size AS skills, coalesce(planned, 0) AS planned,
       coalesce(generated, 0) AS generated, coalesce(accepted, 0) AS accepted,
       coalesce(rejected, 0) AS rejected, coalesce(tokens, 0) AS tokens
FROM cluster cl LEFT JOIN used USING (cluster_id)
ORDER BY planned DESC, cluster;

CREATE OR REPLACE VIEW query_type_coverage AS
SELECT q.name AS query_type, split, count(*) AS planned,
       count(*) FILTER (generated) AS generated, count(*) FILTER (accepted) AS accepted,
       count(*) FILTER (rejected) AS rejected, sum(tokens)::BIGINT AS tokens
FROM query_type q JOIN mix_outcome USING (query_type_id)
GROUP BY ALL ORDER BY query_type, split;

-- How evenly things are used. Units that were never used count as zeros, pairs among all that the
-- skills could form. Gini: 0 is even, 1 is all in one; entropy in bits, and as a share of the most
-- that so many units could have. NULL where nothing was used.
CREATE OR REPLACE VIEW coverage_balance AS
WITH totals AS (
    SELECT 'skill' AS level, count(*) AS units FROM skill
    UNION ALL SELECT 'cluster', count(*) FROM cluster
    UNION ALL SELECT 'pair', count(*) * (count(*) - 1) // 2 FROM skill
    UNION ALL SELECT 'query_type', count(*) FROM query_type
), uses AS (
    SELECT 'skill' AS level, planned, accepted FROM skill_coverage
    UNION ALL SELECT 'cluster', planned, accepted FROM cluster_coverage
    UNION ALL SELECT 'pair', planned, accepted FROM pair_coverage
    UNION ALL SELECT 'query_type', sum(planned), sum(accepted)
              FROM query_type_coverage GROUP BY query_type
), counted AS (
    SELECT level, 'planned' AS what, planned::DOUBLE AS n FROM uses WHERE planned > 0
    UNION ALL SELECT level, 'accepted', accepted::DOUBLE FROM uses WHERE accepted > 0
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY level, what ORDER BY n) AS place,
           n / sum(n) OVER (PARTITION BY level, what) AS share
    FROM counted
), summed AS (
    SELECT level, what, count(*) AS used, min(n) AS minimum, max(n) AS maximum, sum(n) AS total,
           sum(place * n) AS ranks, -sum(share * log2(share)) AS entropy
    FROM ranked GROUP BY level, what
)
SELECT level, what, units, coalesce(used, 0) AS used, units - coalesce(used, 0) AS unused,
       CASE WHEN units > coalesce(used, 0) THEN 0 ELSE minimum END::BIGINT AS minimum,
       coalesce(maximum, 0)::BIGINT AS maximum, round(coalesce(total, 0) / units, 4) AS mean,
       -- The unused come first in the order of use, which shifts every place.
       round(2 * (ranks + (units - used) * total) / (units * total) - (units + 1) / units, 6)
           AS gini,
       round(entropy, 6) AS entropy,
       round(entropy / nullif(log2(units), 0), 6) AS normalised_entropy
FROM totals CROSS JOIN (VALUES ('planned'), ('accepted')) w(what)
LEFT JOIN summed USING (level, what)
WHERE units > 0
ORDER BY list_position(['skill', 'cluster', 'pair', 'query_type'], level), what DESC;

-- What the seed data exhibits against what was accepted: a seed example has one cluster, an
-- accepted example each cluster that its skills are in; both shares add up to 1.
CREATE OR REPLACE VIEW seed_coverage AS
WITH seeds AS (
    SELECT cluster_id, count(*) AS n FROM seed_example GROUP BY cluster_id
), shown AS (
    SELECT DISTINCT s.cluster_id, mix_id
    FROM mix_outcome JOIN mix_skill USING (mix_id) JOIN skill s USING (skill_id) WHERE accepted
), kept AS (
    SELECT cluster_id, count(*) AS n FROM shown GROUP BY cluster_id
), both_sides AS (
    SELECT cl.name AS cluster, coalesce(seeds.n, 0) AS seed_examples,
           coalesce(kept.n, 0) AS accepted_examples
    FROM cluster cl LEFT JOIN seeds USING (cluster_id) LEFT JOIN kept USING (cluster_id)
), shares AS (
    SELECT cluster, seed_examples,
           round(seed_examples / nullif(sum(seed_examples) OVER (), 0), 4) AS seed_share,
           accepted_examples,
           round(accepted_examples / nullif(sum(accepted_examples) OVER (), 0), 4)
               AS accepted_share
    FROM both_sides
)
SELECT *, round(accepted_share - seed_share, 4) AS difference
FROM shares ORDER BY seed_examples DESC, accepted_examples DESC, cluster;

CREATE OR REPLACE VIEW rejections AS
SELECT m.split, c.status, coalesce(v.gate, 'call') AS gate,
       split_part(c.reason, ': ', 1) AS reason, count(*) AS n
FROM candidate c JOIN mix m USING (mix_id)
LEFT JOIN verdict v ON v.mix_id = c.mix_id AND NOT v.passed
WHERE c.status IN ('rejected', 'failed')
GROUP BY ALL ORDER BY n DESC, gate;

-- Means of an example: paper, table 14. Tokens are the student's; NULL where they were not counted.
CREATE OR REPLACE VIEW dataset_stats AS
WITH examples AS (
    SELECT 'accepted' AS set_name, split, instruction, response, instruction_tokens,
           response_tokens, k
    FROM candidate JOIN mix USING (mix_id) WHERE status = 'accepted'
    UNION ALL
    SELECT set_name, 'train', instruction, response, instruction_tokens, response_tokens,
           nullif(len(skills), 0)
    FROM set_example WHERE status = 'accepted'
)
SELECT set_name, split, count(*) AS examples, round(avg(k), 2) AS k,
       round(avg(instruction_tokens), 1) AS instruction_tokens,
       round(avg(len(instruction)), 1) AS instruction_characters,
       round(avg(response_tokens), 1) AS response_tokens,
       round(avg(len(response)), 1) AS response_characters,
       count(DISTINCT instruction) AS distinct_instructions
FROM examples GROUP BY set_name, split ORDER BY set_name <> 'accepted', set_name, split;

CREATE OR REPLACE VIEW checkpoint_curve AS
WITH measured AS (                        -- one row a model, its scores on dev
    SELECT model_id, any_value(value) FILTER (metric = 'win_rate') AS win_rate,
           any_value(low) FILTER (metric = 'win_rate') AS win_rate_low,
           any_value(high) FILTER (metric = 'win_rate') AS win_rate_high,
           any_value(value) FILTER (metric = 'lc_win_rate') AS lc_win_rate,
           any_value(low) FILTER (metric = 'lc_win_rate') AS lc_low,
           any_value(high) FILTER (metric = 'lc_win_rate') AS lc_high,
           any_value(value) FILTER (metric = 'skill_coverage') AS skill_coverage,
           any_value(value) FILTER (metric = 'mean_length') AS mean_length,
           any_value(value) FILTER (metric = 'mean_tokens') AS mean_tokens,
           any_value(value) FILTER (metric = 'word_entropy') AS word_entropy
    FROM score WHERE split = 'dev' GROUP BY model_id
)
SELECT c.checkpoint_id, c.training, c.epoch, c.train_loss, c.dev_loss,
       win_rate, win_rate_low, win_rate_high, lc_win_rate, lc_low, lc_high, skill_coverage,
       mean_length, mean_tokens, word_entropy, c.picked, c.tied
FROM checkpoint c LEFT JOIN measured ON model_id = c.checkpoint_id
ORDER BY c.training <> 'main', c.training, c.epoch;

-- The epoch that each criterion alone would pick; of equals the earlier.
CREATE OR REPLACE VIEW picks AS
SELECT training, max(epoch) AS epochs,
       first(epoch ORDER BY dev_loss, epoch) FILTER (dev_loss IS NOT NULL) AS by_dev_loss,
       first(epoch ORDER BY win_rate DESC, epoch) FILTER (win_rate IS NOT NULL) AS by_win_rate,
       first(epoch ORDER BY lc_win_rate DESC, epoch) FILTER (lc_win_rate IS NOT NULL)
           AS by_lc_win_rate,
       first(epoch ORDER BY epoch) FILTER (picked) AS picked
FROM checkpoint_curve GROUP BY training ORDER BY training <> 'main', training;

CREATE OR REPLACE VIEW leaderboard AS
SELECT model_id, metric, round(value, 2) AS value, round(low, 2) AS low, round(high, 2) AS high,
       n, unscored
FROM score WHERE split = 'test' ORDER BY metric, value DESC NULLS LAST;

-- Scores of every model that was evaluated, of whole suites and of lm-eval's tasks; categories, skills
-- and subjects are rows of suite_score. A sample is the few items that ship with localism.
CREATE OR REPLACE VIEW evaluations AS
SELECT suite, model_id, judge, trim(part || ' ' || metric) AS metric, round(value, 4) AS value,
       round(low, 4) AS low, round(high, 4) AS high, n, unscored,
       coalesce(is_sample, false) AS is_sample, s.note
FROM suite_score s LEFT JOIN suite USING (suite)
WHERE part = '' OR (suite = 'lm-eval' AND part NOT LIKE 'mmlu\_%' ESCAPE '\')
ORDER BY suite, metric, judge, value DESC NULLS LAST;

-- What each example took: all turns of its conversation, those that a fork found paid included.
CREATE OR REPLACE VIEW example_cost AS
WITH RECURSIVE chain AS (
    SELECT mix_id, turn_id FROM candidate WHERE turn_id IS NOT NULL
    UNION ALL
    SELECT mix_id, parent_id FROM chain JOIN turn USING (turn_id) WHERE parent_id IS NOT NULL
)
SELECT c.mix_id, any_value(m.split) AS split, any_value(c.status) AS status, count(*) AS calls,
       sum(prompt_tokens)::BIGINT AS prompt_tokens,
       sum(t.completion_tokens)::BIGINT AS completion_tokens, round(sum(seconds), 3) AS seconds
FROM chain JOIN turn t USING (turn_id) JOIN candidate c USING (mix_id) JOIN mix m USING (mix_id)
GROUP BY c.mix_id;

-- What the judge made of each test prompt, for the pick of every training. `rule` says how it was
-- judged and by whom: preferences under one rule can be compared, on the same prompt (instruction
-- and reference) or at least on the same tuple of skills and query type, pair by pair.
CREATE OR REPLACE VIEW test_preferences AS
WITH judged_by AS (
    SELECT any_value(recipe->>'$.judge.kind') AS kind,
           CASE WHEN bool_or(recipe->>'$.pick.both_orders' = 'false'
                             OR recipe->>'$.judge.kind' = 'likelihood') THEN 1 ELSE 2 END AS orders,
           (SELECT any_value(fingerprint) FROM asset WHERE role = 'judge') AS judge
    FROM run
), tuples AS (
    SELECT mix_id, string_agg(s.name, ' ' ORDER BY s.name) AS skills
    FROM mix_skill JOIN skill s USING (skill_id) GROUP BY mix_id
)
SELECT c.training, c.checkpoint_id AS model_id, a.mix_id,
       md5(concat_ws(chr(0), d.instruction, d.response)) AS prompt,
       CASE WHEN any_value(t.skills) IS NOT NULL
            THEN md5(concat_ws(chr(0), any_value(t.skills), any_value(q.name))) END AS tuple,
       concat_ws(' ', kind, orders, judge) AS rule,
       -- Half a pair of orders would bring the advantage of a position in.
       CASE WHEN count(j.preference) = orders THEN avg(j.preference) END AS preference
FROM judged_by CROSS JOIN checkpoint c
JOIN answer a ON a.model_id = c.checkpoint_id AND a.split = 'test'
JOIN candidate d USING (mix_id) JOIN mix m USING (mix_id)
LEFT JOIN query_type q USING (query_type_id) LEFT JOIN tuples t USING (mix_id)
LEFT JOIN judgment j USING (answer_id)
WHERE c.picked AND d.status = 'accepted'
GROUP BY c.training, c.checkpoint_id, a.mix_id, d.instruction, d.response, kind, orders, judge
ORDER BY c.training <> 'main', c.training, a.mix_id;

-- One row a training whose pick was measured on test: what it was trained on, and what came of it.
-- Differences are against the training of the accepted examples with the same seed (or main) in
-- points of win rate, paired by prompt, with a normal 95% interval; `effect` is the difference in
-- standard deviations of the preferences (Cohen's d, mean of both variances).
CREATE OR REPLACE VIEW ablations AS
WITH own AS (
    SELECT any_value(recipe->>'$.seed')::BIGINT AS seed,
           any_value(coalesce(nullif(recipe->>'$.teacher.path', ''),
                              recipe->>'$.teacher.endpoints[0]')) AS teacher
    FROM run
), test AS (
    SELECT model_id, any_value(value) FILTER (metric = 'win_rate') AS win_rate,
           any_value(low) FILTER (metric = 'win_rate') AS low,
           any_value(high) FILTER (metric = 'win_rate') AS high,
           any_value(value) FILTER (metric = 'lc_win_rate') AS lc_win_rate,
           any_value(low) FILTER (metric = 'lc_win_rate') AS lc_low,
           any_value(high) FILTER (metric = 'lc_win_rate') AS lc_high,
           any_value(value) FILTER (metric = 'mean_length') AS characters,
           any_value(value) FILTER (metric = 'mean_tokens') AS tokens,
           any_value(value) FILTER (metric = 'skill_coverage') AS skill_coverage
    FROM score WHERE split = 'test' GROUP BY model_id
), named AS (                             -- whole-suite scores; a second judge is named
    SELECT model_id, value, suite || ' ' || metric
               || CASE WHEN count(DISTINCT judge) OVER (PARTITION BY suite, metric) > 1
                       THEN ' by ' || judge ELSE '' END AS name
    FROM suite_score ANTI JOIN (SELECT suite FROM suite WHERE is_sample) sample USING (suite)
    WHERE part = ''
), suites AS (
    SELECT model_id, map(list(name ORDER BY name), list(value ORDER BY name)) AS benchmarks
    FROM named GROUP BY model_id
), trained AS (
    SELECT c.training, c.checkpoint_id AS model_id, c.epoch,
           coalesce(t.set_name, 'accepted') AS set_name, coalesce(t.seed, own.seed) AS seed
    FROM own CROSS JOIN checkpoint c LEFT JOIN training t ON t.name = c.training WHERE c.picked
), same_seed AS (                         -- what each is compared with
    SELECT one.training, coalesce(any_value(other.training), 'main') AS other
    FROM trained one LEFT JOIN trained other ON other.set_name = 'accepted'
        AND other.seed = one.seed AND other.training <> one.training
    WHERE one.training <> 'main' GROUP BY one.training
), paired AS (
    SELECT same_seed.training, any_value(same_seed.other) AS compared_with, count(*) AS prompts,
           100 * avg(a.preference - b.preference) AS difference,
           100 * 1.959964 * stddev_samp(a.preference - b.preference) / sqrt(count(*)) AS half,
           avg(a.preference - b.preference) / nullif(sqrt((var_samp(a.preference)
               + var_samp(b.preference)) / 2), 0) AS effect
    FROM same_seed JOIN test_preferences a ON a.training = same_seed.training
    JOIN test_preferences b ON b.training = same_seed.other AND a.prompt = b.prompt
    WHERE a.preference IS NOT NULL AND b.preference IS NOT NULL GROUP BY same_seed.training
)
SELECT tr.training, tr.model_id, tr.set_name, coalesce(s.kind, 'accepted') AS kind,
       coalesce(s.source, 'accepted') AS source, d.k, d.examples,
       CASE WHEN s.source IS NULL THEN own.teacher
            WHEN s.settings->>'$.teacher' IS NOT NULL THEN s.settings->>'$.teacher'
            WHEN s.source = 'accepted' THEN own.teacher
            ELSE from_set.settings->>'$.teacher' END AS teacher,
       (s.settings->>'$.share')::DOUBLE AS share, (s.settings->>'$.number')::BIGINT AS part,
       tr.seed, tr.epoch, round(win_rate, 2) AS win_rate, round(low, 2) AS low,
       round(high, 2) AS high, round(lc_win_rate, 2) AS lc_win_rate, round(lc_low, 2) AS lc_low,
       round(lc_high, 2) AS lc_high, round(characters, 1) AS characters,
       round(tokens, 1) AS tokens, round(skill_coverage, 1) AS skill_coverage, compared_with,
       round(difference, 2) AS difference, round(difference - half, 2) AS difference_low,
       round(difference + half, 2) AS difference_high, round(effect, 2) AS effect, prompts,
       benchmarks
FROM own CROSS JOIN trained tr JOIN test USING (model_id)
LEFT JOIN training_set s USING (set_name)
LEFT JOIN training_set from_set ON from_set.set_name = s.source
LEFT JOIN dataset_stats d ON d.set_name = tr.set_name AND d.split = 'train'
LEFT JOIN paired USING (training) LEFT JOIN suites USING (model_id)
ORDER BY tr.training <> 'main', tr.set_name, tr.seed;

-- The paper's ablation tables, of this run: table 2 (which data), 3 (how many skills, how many
-- examples), 4 (which teacher), 6 (bad answers), 13 (disjoint parts). Table 14 is dataset_stats.
CREATE OR REPLACE VIEW ablation_data AS
SELECT training, kind, source, k, examples, win_rate, lc_win_rate, characters, difference,
       difference_low, difference_high, effect, prompts, benchmarks
FROM ablations WHERE kind IN ('accepted', 'k', 'longest', 'random') ORDER BY kind, k DESC, examples, training <> 'main', training;

CREATE OR REPLACE VIEW ablation_skills AS
SELECT k, examples, training, win_rate, lc_win_rate, skill_coverage, difference, difference_low,
       difference_high, effect, prompts, benchmarks
FROM ablations WHERE kind IN ('accepted', 'k', 'random', 'split') AND k IS NOT NULL
ORDER BY k DESC, examples DESC, training <> 'main', training;

CREATE OR REPLACE VIEW ablation_teachers AS
SELECT teacher, training, kind, source, k, examples, win_rate, lc_win_rate, difference,
       difference_low, difference_high, effect, prompts, benchmarks
FROM ablations WHERE kind IN ('accepted', 'teacher') OR source NOT IN (
    SELECT 'accepted' UNION ALL SELECT set_name FROM training_set)
ORDER BY teacher, training <> 'main', training;

CREATE OR REPLACE VIEW ablation_quality AS
SELECT kind, share, training, examples, lc_win_rate, win_rate, characters, skill_coverage,
       difference, difference_low, difference_high, effect, prompts, benchmarks
FROM ablations WHERE kind IN ('accepted', 'brevity', 'junk')
ORDER BY kind <> 'accepted', kind, share, training <> 'main', training;

CREATE OR REPLACE VIEW ablation_splits AS
SELECT part, training, examples, win_rate, low, high, lc_win_rate, characters, difference,
       difference_low, difference_high, effect, prompts, benchmarks
FROM ablations WHERE kind = 'split' ORDER BY source, part, training;

-- From an example back to everything that made it.
CREATE OR REPLACE VIEW lineage AS
SELECT m.mix_id, m.split, c.status, s.name AS skill, cl.name AS cluster, l.raw AS label,
       l.source, l.reason AS label_reason, c.turn_id
FROM mix m JOIN mix_skill ms USING (mix_id) JOIN skill s USING (skill_id)
JOIN cluster cl USING (cluster_id) LEFT JOIN skill_label l USING (skill_id)
LEFT JOIN candidate c USING (mix_id);
