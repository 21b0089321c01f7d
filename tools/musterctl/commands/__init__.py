"""One module per group of commands; ``table`` lists all commands with their flags.
"""
