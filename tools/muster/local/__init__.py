"""Several hosts on one machine: ``hosts`` runs them, ``layout`` says where they are, ``commands`` are `muster
local`'s.
"""
