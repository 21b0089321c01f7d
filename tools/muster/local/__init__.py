"""Several hosts on one machine: ``hosts`` runs them, ``layout`` has their places, ``commands`` are `muster
local`'s."""
