"""A host's one peer port: ``preamble`` (which shard a link is for), ``door`` (reads it and hands connections
on), ``handing`` (to the nodes), ``bound`` (the sockets), ``http`` (what strangers may ask). The dialling side
is ``knock``."""
