"""Whole clusters in one process, out of one seed: :mod:`tests.sim.world.order_sim` first."""
