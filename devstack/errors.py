"""The one error of devstack: what failed, and the command or setting that helps."""


class DevstackError(Exception):
    """Something a person has to know about; `hint` is what to do next (may be empty)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.hint}" if self.hint else message
