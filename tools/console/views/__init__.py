"""What browsers show. ``shell`` is the frame and finds the view of an address; ``page`` is what a view gets.

Each view is a module with ``async build(page)``. A view asks the cluster by ``store`` alone.
"""
