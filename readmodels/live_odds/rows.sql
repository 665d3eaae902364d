-- 20 events with 5 markets each, and 3 selections in each market.
INSERT INTO public.events SELECT n, 'Match ' || n FROM generate_series(1, 20) n;
INSERT INTO public.markets SELECT n, 1 + n % 20, 'Market ' || n FROM generate_series(1, 100) n;
INSERT INTO public.prices
SELECT m, s, 1.5 + (m * 7 + length(s) * 13) % 40 / 10.0, 100 * (m % 17) FROM generate_series(1, 100) m, unnest(ARRAY['home', 'draw', 'away']) s;
