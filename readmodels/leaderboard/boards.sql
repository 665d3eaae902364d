-- The boards that Redis should have: game, player and points. The order is the same as that of ZRANGE … REV.
SELECT p.game_id, p.id::text, coalesce(sum(m.points), 0)
  FROM public.players p LEFT JOIN public.matches m ON m.player_id = p.id
 GROUP BY p.game_id, p.id
 ORDER BY p.game_id, 3 DESC, p.id::text COLLATE "C" DESC;
