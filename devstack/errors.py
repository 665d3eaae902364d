"""Defines the error that every part of devstack raises."""


class DevstackError(Exception):
    """Reports what failed. `hint` is the command to run or the setting to change; it may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  {self.hint}" if self.hint else message
