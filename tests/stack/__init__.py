"""What tests on real servers need: a database of their own, and names for everything they make."""

from tests.stack.database import Database
from tests.stack.names import Names

__all__ = ["Database", "Names"]
