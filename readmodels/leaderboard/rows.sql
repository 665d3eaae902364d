-- 3 games, 60 players, 600 matches, and badges for some players. Each run creates the same rows.
INSERT INTO public.games SELECT n, 'Game ' || n FROM generate_series(1, 3) n;
INSERT INTO public.players SELECT n, 1 + n % 3, 'Player ' || n FROM generate_series(1, 60) n;
INSERT INTO public.matches SELECT n, 1 + n * 7 % 60, n * 37 % 100 FROM generate_series(1, 600) n;
INSERT INTO public.badges SELECT n, 'veteran' FROM generate_series(1, 60, 4) n;
INSERT INTO public.badges SELECT n, 'champion' FROM generate_series(1, 60, 6) n;
