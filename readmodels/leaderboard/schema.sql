-- A gaming site: players belong to a game and earn points in matches.
CREATE TABLE public.games (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.players (
    id bigint PRIMARY KEY, game_id integer NOT NULL REFERENCES public.games, name text NOT NULL);
CREATE TABLE public.matches (
    id bigint PRIMARY KEY, player_id bigint NOT NULL REFERENCES public.players, points integer NOT NULL);
CREATE TABLE public.badges (
    player_id bigint REFERENCES public.players, badge text, PRIMARY KEY (player_id, badge));
CREATE INDEX ON public.players (game_id);
CREATE INDEX ON public.matches (player_id);
-- With the old row, a change event names the player to whom a match belonged before it was moved or deleted.
ALTER TABLE public.matches REPLICA IDENTITY FULL;
