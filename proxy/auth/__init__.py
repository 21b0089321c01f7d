"""Who a client is: tokens given and read, and passwords.

``shown`` turns what a client shows (a token, a certificate's name) into the principal that stands before its
requests; ``tokens`` says which are given, ``jwt`` are JSON web tokens; ``passwords`` are compared beside the
loop. Whether a principal may do something is judged by nodes (``cluster.features.auth.judge``).
"""
