-- All other users follow user 1. Each of them follows 20 more users. Every user has some posts.
INSERT INTO public.users SELECT n, CASE n WHEN 1 THEN 'Celebrity' ELSE 'User ' || n END FROM generate_series(1, {followers} + 1) n;
INSERT INTO public.follows SELECT n, 1 FROM generate_series(2, {followers} + 1) n;
INSERT INTO public.follows
SELECT n, 2 + (n * 31 + step * step * 7919) % {followers}
  FROM generate_series(2::bigint, {followers} + 1) n, generate_series(1, 20) step
    ON CONFLICT DO NOTHING;
INSERT INTO public.posts (author_id, text, posted_at)
SELECT 1 + n * 7919 % ({followers} + 1), 'Post ' || n, timestamptz '2026-01-01 00:00+00' + n * interval '1 second'
  FROM generate_series(1, {followers}::bigint * 5) n;
INSERT INTO public.posts (author_id, text, posted_at)
SELECT 1, 'News ' || n, timestamptz '2026-03-01 00:00+00' + n * interval '1 second' FROM generate_series(1, 200) n;
VACUUM ANALYZE;
