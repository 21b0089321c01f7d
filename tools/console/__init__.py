"""The web console: a graphical client of muster or etcd, on NiceGUI.

Read ``store`` first (what is asked of the cluster, no widgets), then ``app``, ``views.shell``, and a view,
each a module in ``views``. ``guard``, ``bounds`` and ``sessions`` say what a browser may do; ``texts`` has
every word shown.
"""
