-- A betting exchange: an event has markets, and a market has a price for each selection. Prices change all the time.
CREATE TABLE public.events (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.markets (
    id bigint PRIMARY KEY, event_id bigint NOT NULL REFERENCES public.events, name text NOT NULL);
CREATE TABLE public.prices (
    market_id bigint REFERENCES public.markets, selection text,
    odds numeric(8, 2) NOT NULL, traded numeric(14, 2) NOT NULL, changes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (market_id, selection));
CREATE INDEX ON public.markets (event_id);
-- With the old row, a change event names the betting event to which a market belonged before it was moved or deleted.
ALTER TABLE public.markets REPLICA IDENTITY FULL;
