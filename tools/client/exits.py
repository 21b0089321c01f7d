"""How a client program ends."""


class Exit(Exception):
    """End the program with this code; a message goes to stderr as ``Error: message``."""

    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(message or "")
        self.code = code
        self.message = message
