"""Watches: one upstream subscription per distinct range, any number of client watches on it.

Read in this order: ``encode`` (events and envelopes in wire form), ``parts`` (one shard's events in order,
without a gap), ``subscription`` (several shards merged; who gets what), ``cohort`` (watches that are served
as one), ``history`` (catching up from an old revision), ``gathered`` (one answer about the past), ``stream``
(one client's stream), ``progress`` (answers to progress requests), ``hub`` (all of it, tied to the links).
"""
