-- Readings of some hours. Device 1 sends 40 % of them.
INSERT INTO public.devices
SELECT n, 'Sensor ' || lpad(n::text, 3, '0'), (ARRAY['Berlin', 'Kyoto', 'Lima', 'Oslo', 'Pune'])[1 + n % 5]
  FROM generate_series(1, {devices}) n;
INSERT INTO public.readings
SELECT device, number, taken_at,
       CASE WHEN NOT failed THEN round((18 + device % 7 + 5 * sin(extract(epoch FROM taken_at) / 13751)
                                        + n * 13 % 29 / 10.0)::numeric, 2) END,
       CASE WHEN failed THEN 'no answer' END
  FROM (SELECT n, CASE WHEN n % 5 < 2 THEN 1 ELSE 2 + other % ({devices} - 1) END AS device,
               1 + CASE WHEN n % 5 < 2 THEN n / 5 * 2 + n % 5 ELSE other / ({devices} - 1) END AS number,
               now() - interval '{hours} hours' * (1 - n / {readings}::float8) AS taken_at
          FROM (SELECT n, n / 5 * 3 + n % 5 - 2 AS other FROM generate_series(0::bigint, {readings} - 1) n) numbered) dated,
       LATERAL (SELECT n * 7919 % 1000 < 4 + device * 11 % 67 AS failed) checked;
VACUUM ANALYZE;
