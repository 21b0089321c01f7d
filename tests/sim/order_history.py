def check_history(simulation):
    pass
