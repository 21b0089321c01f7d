"""The members that a front works with: whose list of them it goes by (``following``), which it does not reach
(``reach``), and which one a header names (``answering``)."""
